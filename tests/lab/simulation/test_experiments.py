"""Whole experiments on phantoms: reports, tables, pictures and the page."""

import json
from functools import partial

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.benchmarks.simulation import section
from slicecast_lab.evaluation.cases import CaseFiles, find_split
from slicecast_lab.evaluation.page import markdown
from slicecast_lab.simulation.annotator import Robot
from slicecast_lab.simulation.experiments import simulate_joint, simulate_slices, simulate_volumes
from slicecast_lab.simulation.learner import Labelling
from slicecast_lab.simulation.slices import SliceTask
from slicecast_lab.simulation.strategies import ORACLE
from slicecast_lab.simulation.tables import draw_report, tables_of
from slicecast_lab.simulation.volumes import VolumePlan
from slicecast_lab.simulation.work import FAKE, Setup, Workers, carry_out

SETUP = Setup(FAKE, "cpu")
NOISY = Robot("noisy", 3)
SLICES = ("value", "strided", "worst", "raw:value", "oracle_worst")


@pytest.fixture(scope="module")
def reports(folder, tmp_path_factory):
    """One report of each experiment."""
    store = tmp_path_factory.mktemp("done") / "done.jsonl"
    work = partial(carry_out, setup=SETUP, workers=Workers(), store=store)
    split = find_split(folder, ())
    like = SliceTask(split.test[0], SLICES, 2)
    plan = VolumePlan(("random", "strat_random", "coverage", ORACLE), (0, 1, 2, 4), 2)
    joint = VolumePlan(("random", "coverage"), (1, 2, 3), 2, Labelling("", 1, NOISY))
    return {
        "slices": simulate_slices(split.test, split.pool, like, SETUP, work),
        "volumes": simulate_volumes(split, plan, SETUP, work),
        "joint": simulate_joint(split, joint, ("strided",), SETUP, work),
    }


@pytest.mark.parametrize("name", ["slices", "volumes", "joint"])
def test_a_report_has_tables_and_a_picture_that_repeat(reports, tmp_path, name):
    report = json.loads(json.dumps(reports[name]))
    assert report == reports[name]
    assert all(
        len(table.frame) and markdown(table.frame).startswith("| ") and table.rich() for table in tables_of(report)
    )
    first, again = (draw_report(report, tmp_path / f"{n}.svg").read_bytes() for n in (1, 2))
    assert first == again and b"<svg" in first


def test_identical_bytes_for_an_identical_seed(folder, reports):
    """Computed anew, with nothing kept."""
    split, work = find_split(folder, ()), partial(carry_out, setup=SETUP, workers=Workers())
    again = simulate_slices(split.test, split.pool, SliceTask(split.test[0], SLICES, 2), SETUP, work)
    assert json.dumps(again) == json.dumps(reports["slices"])


def test_the_slices_report_holds_every_course(reports):
    report = reports["slices"]
    for case in report["cases"]:
        assert list(case["courses"]) == list(SLICES)
        assert len({course["steps"][0]["dice"] for course in case["courses"].values()}) == 1  # the same first answer
    assert report["summary"]["confidence"]["volumes"] == 5


def test_volumes_learn(reports):
    strategies = reports["volumes"]["summary"]["strategies"]
    assert set(strategies) == {"random", "strat_random", "coverage", ORACLE}
    for own in strategies.values():
        assert own["dice"][0]["value"] == 0 and own["dice"][1]["value"] > 0.3
        assert all(len(ids) == len(set(ids)) == 4 for ids in own["selected"])


def test_effort_is_what_the_labels_took(reports):
    said = reports["joint"]["summary"]
    painted = said["labels"]["strided"]["actions"]["masks"]
    assert 1 < painted <= 2 and said["labels"]["strided"]["dice"] > 0.5
    horizon = said["efforts"]["as given"]["seconds"][-1]
    assert horizon == pytest.approx(3 * 2 * 81, abs=3 * 81)
    assert said["efforts"]["painting x 2"]["seconds"][-1] > horizon


def test_a_section_has_picture_tables_and_what_was_selected(reports):
    texts = {name: section(name, report, {"seconds": 60}, f"{name}.svg") for name, report in reports.items()}
    assert all(f"]({name}.svg)" in text and "Took 1.0 minutes" in text for name, text in texts.items())
    assert "value against the others" in texts["slices"] and "fitted (" in texts["slices"]
    assert "Selected volumes" in texts["volumes"] and "every slice painted" in texts["volumes"]
    assert "\n\n\n" not in "".join(texts.values())


def test_the_joint_experiment_has_no_oracle(folder):
    with pytest.raises(ConfigError, match="oracle"):
        simulate_joint(find_split(folder, ()), VolumePlan((ORACLE,), (1,), 1), ("strided",), SETUP, list)


def test_pictures_have_known_formats(reports, tmp_path):
    with pytest.raises(ConfigError, match="gif"):
        draw_report(reports["slices"], tmp_path / "x.gif")


def test_what_names_a_case_is_its_content(cases, tmp_path):
    copy = CaseFiles("other", cases[0].image, cases[0].label, (1,), "other")
    assert SliceTask(copy, SLICES, 2).key != SliceTask(cases[0], SLICES, 2).key
