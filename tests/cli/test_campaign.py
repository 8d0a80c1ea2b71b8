"""`slicecast campaign`."""

import json
import sqlite3

import pytest
from builders import ball, grid
from labelserver import write_studies
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.service import open_campaign_service
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume import Volume, write_volume


@pytest.fixture
def studies(tmp_path):
    """A folder with a campaign in which `first` was submitted."""
    folder = write_studies(tmp_path / "studies")
    store = StudiesDatastore(str(folder), extensions=["*.nii.gz"])
    service = open_campaign_service(folder, datastore=lambda: store)
    label = write_volume(tmp_path / "label.nii.gz", Volume(ball().astype("uint8"), grid()))
    with calling(Caller(name="ann")):
        service.save("first", label, tag="final", info={"label_info": [{"name": "ball", "idx": 1}]})
    service.wait()
    service.campaign.store.close()
    return folder


@pytest.fixture
def run(studies):
    def run_(*words):
        return CliRunner().invoke(app, ["campaign", *map(str, words), "--studies", str(studies)])

    return run_


def test_status(run):
    assert "1 submitted" in run("status").output and "ann" in run("status").output
    assert json.loads(run("status", "--json").output)["progress"]["open"] == 1


def test_verify_finds_a_changed_event(run, studies):
    good = run("verify")
    assert good.exit_code == 0 and "the chain holds" in good.output
    head = good.output.split()[-1]
    assert run("verify", "--head", head).exit_code == 0
    assert run("verify", "--head", head.split(":")[0] + ":00").exit_code == 1
    assert run("verify", "--head", "nonsense").exit_code == 2
    connection = sqlite3.connect(studies / "campaign" / "campaign.db")
    with connection:
        connection.execute("UPDATE slicecast_events SET who = 'eve' WHERE kind = 'submitted'")
    connection.close()
    bad = run("verify")
    assert bad.exit_code == 1 and "was changed" in bad.output


@pytest.mark.parametrize("change", ["kind = 'x'", "data = '{'"])
def test_verify_finds_an_event_that_cannot_be_read(run, studies, change):
    connection = sqlite3.connect(studies / "campaign" / "campaign.db")
    with connection:
        connection.execute(f"UPDATE slicecast_events SET {change} WHERE number = 2")
    connection.close()
    bad = run("verify")
    assert bad.exit_code == 1 and "event 2 was changed" in bad.output


def test_a_database_that_is_none_is_one_sentence(run, studies):
    (studies / "campaign" / "campaign.db").write_bytes(b"no database" * 100)
    bad = run("status")
    assert bad.exit_code == 1 and "cannot be opened: file is not a database" in bad.output


def test_export(run, studies, tmp_path):
    assert run("export", "-o", tmp_path / "out", "--modality", "CT", "--name", "Ball").exit_code == 0
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "ball": 1} and content["numTraining"] == 1
    assert run("export", "-o", tmp_path / "cases.csv", "--format", "csv").exit_code == 0
    assert (tmp_path / "cases.csv").read_text().count("\n") == 3
    assert run("export", "-o", tmp_path / "x", "--status", "approved").exit_code == 2
    assert "names no status" in run("export", "-o", tmp_path / "x", "--status", "great").output


def test_one_bad_case_never_stops_an_export(run, studies, tmp_path):
    store = StudiesDatastore(str(studies), extensions=["*.nii.gz"])
    service = open_campaign_service(studies, datastore=lambda: store)
    with calling(Caller(name="ann")):
        service.save(
            "second", tmp_path / "label.nii.gz", tag="final", info={"label_info": [{"name": "ball", "idx": 1}]}
        )
    service.wait()
    (studies / "labels" / "final" / "second.nii.gz").write_text("garbage")
    (tmp_path / "dataset.json").write_text('{"modality": {"first": "CT", "second": "MR"}}')
    first = run("export", "-o", tmp_path / "out")
    assert first.exit_code == 1 and "second was left out" in first.output and "1 cases" in first.output
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["channel_names"] == {"0": "CT"}
    (studies / "labels" / "final" / "first.nii.gz").write_text("garbage")
    assert run("export", "-o", tmp_path / "none").exit_code == 2 and not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["r.html", "r.png"])
def test_report(run, tmp_path, name):
    assert run("report", "-o", tmp_path / name).exit_code == 0 and (tmp_path / name).stat().st_size > 1000


def test_add_gold(run, studies, tmp_path):
    assert run("add-gold", "second", tmp_path / "label.nii.gz").exit_code == 0
    assert (studies / "campaign" / "gold" / "second.nii.gz").is_file()
    assert run("add-gold", "nothing", tmp_path / "label.nii.gz").exit_code == 2


def test_no_campaign(tmp_path):
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["campaign", "status", "--studies", str(tmp_path / "empty")])
    assert result.exit_code == 2 and "There is no campaign" in result.output
    assert list((tmp_path / "empty").iterdir()) == []
