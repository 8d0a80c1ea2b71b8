"""The unmodified client against the whole server: what it draws, what it gets, and what our own sessions make of it."""

import httpx
import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom
from labelserver import read_mask
from nnclient import SessionExpiredError, send

from slicecast.server.dependencies import labelling_app
from slicecast.volume.metrics import dice

BALL = phantom()
IMAGE, TRUTH = BALL.volume.array, BALL.truth
Z, Y, X = (int(n) for n in np.argwhere(TRUTH).mean(axis=0).round())


def sessions(server, image="first"):
    """Return the open sessions on an image, as `/slicecast/sessions` lists them."""
    found = httpx.get(f"{server[0]}/slicecast/sessions").json()["sessions"]
    return [entry for entry in found if entry["image"] == image]


def own_mask(server, folder, *prompts):
    """Return what `/slicecast/sessions` makes of prompts on the first image."""
    opened = httpx.post(f"{server[0]}/slicecast/sessions", json={"image": "first"}).json()
    address = f"{server[0]}/slicecast/sessions/{opened['id']}"
    said = httpx.post(f"{address}/prompts", json={"prompts": [{"object": "object", **prompt} for prompt in prompts]})
    assert said.status_code == 200, said.text
    answer = httpx.get(f"{address}/result", params={"format": "nrrd"}, timeout=60)
    httpx.delete(address)
    return sitk.GetArrayFromImage(read_mask(answer.content, folder)) == 1


def test_a_click_is_answered_as_a_session_answers_it(connect, server, tmp_path):
    session = connect()
    mask = send(session, IMAGE)
    changed = session.add_point_interaction([Z, Y, X], include_interaction=True)
    assert (mask == own_mask(server, tmp_path, {"kind": "point", "ijk": [X, Y, Z]})).all()
    assert dice(mask == 1, TRUTH) > 0.8
    inside = np.zeros_like(mask)
    inside[tuple(slice(*bound) for bound in changed)] = 1
    assert not (mask & ~inside).any()
    assert [prompt["ijk"] for prompt in sessions(server)[0]["prompts"]] == [[X, Y, Z]]


def test_the_last_answer_is_the_case_s_draft(connect, server):
    session = connect()
    mask = send(session, IMAGE)
    session.add_bbox_interaction([[Z, Z + 1], [Y - 6, Y + 7], [X - 6, X + 7]], include_interaction=True)
    session.add_point_interaction([Z, Y, X], include_interaction=True)
    server[1].state.nninteractive.drafts.submit(lambda: None).result()
    ((name, drawn),) = labelling_app().current_masks("first", "127.0.0.1")
    assert name == "object" and (drawn.array == (mask == 1)).all() and mask.any()


def test_undo_goes_back_to_the_first_prompt_and_not_beyond_a_reset(connect):
    session = connect()
    mask = send(session, IMAGE)
    seen = [mask.copy()]
    for place, include in (([Z, Y, X], True), ([Z, 1, 1], False), ([Z + 2, Y, X], True)):
        session.add_point_interaction(place, include_interaction=include)
        seen.append(mask.copy())
    for before in reversed(seen[:-1]):
        assert session.undo() and (mask == before).all()
    assert not session.undo()
    session.add_point_interaction([Z, Y, X], include_interaction=True)
    session.reset_interactions()
    assert not mask.any() and not session.undo() and not mask.any()


def test_boxes_are_the_boxes_of_sessions(connect, server, tmp_path):
    session = connect()
    flat, deep = [[Z, Z + 1], [Y - 6, Y + 7], [X - 6, X + 7]], [[Z - 5, Z + 6], [Y - 6, Y + 7], [X - 6, X + 7]]
    for bounds in (flat, deep):
        mask = send(session, IMAGE)
        session.add_bbox_interaction(bounds, include_interaction=True)
        low, high = ([bound[end] - end for bound in reversed(bounds)] for end in (0, 1))
        assert (mask == own_mask(server, tmp_path, {"kind": "box", "low_ijk": low, "high_ijk": high})).all()
        assert dice(mask == 1, TRUTH) > 0.8


def test_scribbles_and_lassos_whole_or_cropped(connect):
    session = connect()
    scribble, lasso = np.zeros(IMAGE.shape, np.uint8), np.zeros(IMAGE.shape, np.uint8)
    scribble[Z, Y, X - 3 : X + 4] = 1
    lasso[Z, Y - 6 : Y + 7, X - 6 : X + 7] = 1
    for add, drawn in ((session.add_scribble_interaction, scribble), (session.add_lasso_interaction, lasso)):
        bounds = [[int(n.min()), int(n.max()) + 1] for n in np.nonzero(drawn)]
        crop = drawn[tuple(slice(*bound) for bound in bounds)]
        found = []
        for arguments in ({}, {"interaction_bbox": bounds}):
            mask = send(session, IMAGE)
            add(crop if arguments else drawn, include_interaction=True, **arguments)
            found.append(mask.copy())
        assert (found[0] == found[1]).all() and dice(found[0] == 1, TRUTH) > 0.8


def test_what_is_scribbled_away_goes(connect):
    session = connect()
    mask = send(session, IMAGE)
    session.add_bbox_interaction([[Z, Z + 1], [Y - 6, Y + 7], [X - 6, X + 7]], include_interaction=True)
    away = np.zeros(IMAGE.shape, np.uint8)
    away[Z, Y - 3 : Y + 4, X + 2 : X + 6] = 1
    before = int((mask & away).sum())
    session.add_lasso_interaction(away, include_interaction=False)
    assert int((mask & away).sum()) < before


def test_prompts_that_wait_are_carried_out_together(connect):
    session, other = connect(), connect()
    mask, at_once = send(session, IMAGE), send(other, IMAGE)
    places = ([Z, Y, X], True), ([Z, 1, 1], False)
    for place, include in places:
        assert session.add_point_interaction(place, include, run_prediction=False) is None
        other.add_point_interaction(place, include)
    assert not mask.any() and session._predict() is not None
    assert (mask == at_once).all() and mask.any()


@pytest.mark.parametrize(("order", "turned"), [((0, 1, 2), ()), ((2, 1, 0), ()), ((1, 2, 0), (0, 2))])
def test_the_image_is_recognised_however_its_axes_lie(connect, server, order, turned):
    sent = np.flip(IMAGE.transpose(order), turned)
    spacing = [(1.0, 1.0, 1.0)[axis] for axis in order]
    click = np.argwhere(np.flip(_dot(IMAGE.shape, (Z, Y, X)).transpose(order), turned))[0].tolist()
    session = connect()
    mask = send(session, np.ascontiguousarray(sent), spacing)
    session.add_point_interaction(click, include_interaction=True)
    assert dice(mask == 1, np.flip(TRUTH.transpose(order), turned)) > 0.8
    assert [prompt["ijk"] for prompt in sessions(server)[-1]["prompts"]] == [[X, Y, Z]]


def _dot(shape, place):
    array = np.zeros(shape, bool)
    array[place] = True
    return array


def test_an_unknown_image_is_held_for_as_long_as_the_lease(connect, server):
    folder = server[1].state.nninteractive._folder
    session = connect()
    sent = (IMAGE.transpose(2, 1, 0) * 2.0).astype(np.float32)
    mask = send(session, sent, (1.0, 1.0, 1.0))
    session.add_point_interaction([X, Y, Z], include_interaction=True)
    assert dice(mask == 1, TRUTH.transpose(2, 1, 0)) > 0.8
    (file,) = folder.iterdir()
    assert file.stem == sessions(server, image=file.stem)[0]["image"]
    session.close()
    assert not list(folder.iterdir()) and not sessions(server, image=file.stem)


def test_a_lease_that_ended_answers_410_and_its_prompts_come_back_with_the_image(connect, server):
    leases = server[1].state.nninteractive.leases
    session = connect()
    mask = send(session, IMAGE)
    session.add_point_interaction([Z, Y, X], include_interaction=True)
    session.add_point_interaction([Z, 1, 1], include_interaction=False)
    before = mask.copy()
    leases.end_all()
    with pytest.raises(SessionExpiredError, match="your prompts are kept"):
        session.add_point_interaction([Z, Y, X], include_interaction=True)
    again = connect()
    mask = send(again, IMAGE)
    again._predict()
    assert (mask == before).all() and mask.any()
    assert [prompt["positive"] for prompt in sessions(server)[-1]["prompts"]] == [True, False]
    assert again.undo() and again.undo() and not again.undo() and not mask.any()


@pytest.mark.parametrize("resets", [False, True], ids=["napari", "Slicer"])
def test_a_plugin_that_comes_back_with_its_mask_gets_its_prompts_back(connect, server, resets):
    leases = server[1].state.nninteractive.leases
    session = connect()
    mask = send(session, IMAGE)
    session.add_bbox_interaction([[Z, Z + 1], [Y - 6, Y + 7], [X - 6, X + 7]], include_interaction=True)
    before = mask.copy()
    leases.end_all()
    again = connect()
    mask = send(again, IMAGE)
    if resets:
        again.reset_interactions()
    again.add_initial_seg_interaction(before.copy())
    again.add_point_interaction([Z, Y, X], include_interaction=True)
    assert [prompt["kind"] for prompt in sessions(server)[-1]["prompts"]] == ["box", "point"]
    assert again.undo() and (mask == before).all()


def test_another_mask_is_another_object(connect, server):
    leases = server[1].state.nninteractive.leases
    session = connect()
    send(session, IMAGE)
    session.add_point_interaction([Z, Y, X], include_interaction=True)
    leases.end_all()
    again = connect()
    mask = send(again, IMAGE)
    other = np.zeros_like(mask)
    other[2:4, 2:5, 2:5] = 1
    again.add_initial_seg_interaction(other)
    assert {prompt["kind"] for prompt in sessions(server)[-1]["prompts"]} == {"mask"}
    again._predict()
    assert (mask == other).all()


def test_a_mask_to_start_from_stands_until_a_prompt_comes_near(connect):
    session = connect()
    mask = send(session, IMAGE)
    seed = TRUTH.astype(np.uint8)
    seed[Z, Y - 1 : Y + 1, X + 6 : X + 9] = 1
    session.add_initial_seg_interaction(seed.copy())
    assert session._predict() is None and (mask == seed).all()
    session.add_point_interaction([Z, Y, X + 7], include_interaction=False)
    assert not mask[Z, Y, X + 7] and dice(mask == 1, TRUTH) > 0.9
    assert (mask[Z - 4] == seed[Z - 4]).all()
    assert session.undo() and (mask == seed).all()
