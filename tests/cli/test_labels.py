"""`slicecast labels import`."""

import json
from pathlib import Path

import pytest
from builders import ball, grid
from labelserver import write_studies
from typer.testing import CliRunner

from slicecast.cli.labels import read_map
from slicecast.cli.main import app
from slicecast.errors import ConfigError
from slicecast.labelling.campaign.service import open_campaign_service
from slicecast.labelling.preannotation import preannotation
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume import read_volume, write_mask


@pytest.fixture
def studies(tmp_path):
    return write_studies(tmp_path / "studies")


@pytest.fixture
def experts(tmp_path):
    (tmp_path / "experts").mkdir()
    for name in ("first", "second"):
        write_mask(tmp_path / "experts" / f"{name}.nii.gz", ball(), grid())
    return tmp_path / "experts"


@pytest.fixture
def run(studies, experts):
    def run_(*words):
        command = ["labels", "import", str(experts), "--studies", str(studies), "--user", "lee", *words]
        return CliRunner().invoke(app, command, env={"COLUMNS": "200"})

    return run_


def labels_of(studies, tag="final"):
    index = json.loads((studies / "datastore_v2.json").read_text())["objects"]
    return {name: entry["labels"].get(tag) for name, entry in index.items()}


def store_of(studies):
    return StudiesDatastore(str(studies), extensions=["*.nii.gz"])


def service_of(studies):
    store = store_of(studies)
    return open_campaign_service(studies, datastore=lambda: store)


def test_labels_become_final_and_the_campaign_knows(run, studies):
    done = run("--map", "1=liver")
    assert done.exit_code == 0 and "2 of 2 labels taken in" in done.output, done.output
    entry = labels_of(studies)["first"]
    assert entry["info"]["label_info"] == [{"name": "liver", "idx": 1}] and entry["info"]["user"] == "lee"
    assert (read_volume(studies / "labels" / "final" / "first.nii.gz").array == ball()).all()
    case = service_of(studies).campaign.state().case("first")
    assert case.status == "submitted" and case.readings[0].who == "lee"
    assert len(list((studies / "segmentations").glob("*.dcm"))) == 2


def test_a_dry_run_changes_nothing(run, studies):
    before = sorted(studies.rglob("*"))
    done = run("--map", "1=liver", "--dry-run")
    assert done.exit_code == 0 and "2 of 2 labels would be taken in" in done.output
    assert sorted(studies.rglob("*")) == before


def test_what_is_there_stays_unless_it_may_be_replaced(run, studies, experts):
    run("--map", "1=liver")
    (experts / "second.nii.gz").unlink()
    for words in ((), ("--dry-run",)):
        again = run("--map", "1=other", *words)
        assert again.exit_code == 1 and "has a label 'final' already" in again.output
    assert run("--map", "1=other", "--replace").exit_code == 0
    assert labels_of(studies)["first"]["info"]["label_info"][0]["name"] == "other"
    assert list((studies / "labels" / "versions" / "final" / "first").glob("*.nii.gz")), "the old one is kept"
    service_of(studies).campaign.approve("first", "rita")
    assert "approved and stays" in run("--map", "1=third", "--replace").output
    assert labels_of(studies)["first"]["info"]["label_info"][0]["name"] == "other"


def test_a_case_that_somebody_holds(run, studies):
    service = service_of(studies)
    service.sync()
    service.campaign.take("first", "bob")
    done = run("--map", "1=liver")
    assert done.exit_code == 1 and "'first' is with bob" in done.output and "1 of 2 labels" in done.output


def test_drafts_are_a_start(run, studies):
    assert run("--map", "1=liver", "--as", "draft").exit_code == 0
    assert labels_of(studies, "original")["first"] and not labels_of(studies)["first"]
    assert service_of(studies).campaign.state().case("first").status == "open"
    start = preannotation(store_of(studies), "first", geometry=grid(), labels=["spleen"])
    assert start["params"]["label_names"] == {"liver": 1}
    Path(start["file"]).unlink()


def test_without_names(run, studies):
    done = run()
    assert done.exit_code == 1 and "values 1 have no name" in done.output
    (studies.parent / "dataset.json").write_text('{"labels": {"liver": 1}}')
    assert run("--dry-run").exit_code == 0


def test_the_map():
    assert read_map(" 1=liver, 2 = left kidney,") == {1: "liver", 2: "left kidney"}
    for wrong in ("liver", "0=a", "256=a", "1=a,1=b", "1=a,2=a", "1="):
        with pytest.raises(ConfigError):
            read_map(wrong)


def test_no_such_folder(experts):
    done = CliRunner().invoke(app, ["labels", "import", str(experts), "--studies", "/nowhere"])
    assert done.exit_code == 2 and "There is no folder" in done.output
