"""The services of compose.yaml from Debian's packages: the same files, words, names, addresses, one machine each.

No container runs here, so what an image's own entry does is in `start`; versions are Debian's, older than the file's.
"""

import json
import os
import shutil
import string
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from clinic import ORTHANC_PLUGIN, SAMPLES
from machines import network, run, running

from slicecast.inference.studies import MAX_BYTES
from slicecast.volume import read_volume
from slicecast_lab.generated.sample_data import write_dicom_series

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENV = {"ARCHIVE_PASSWORD": "archive-1", "DATABASE_PASSWORD": "database-1", "SLICECAST_NAME": "labels.localhost"}
PROGRAMS = ("caddy", "prometheus", "Orthanc")
SLICECAST = [sys.executable, "-m", "slicecast.cli.main"]
POSTGRES = """
BIN=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
D=/var/lib/postgresql/data; mkdir -p $D; cd $D
printf %s "$POSTGRES_PASSWORD" > /tmp/password
$BIN/initdb -D $D/db -U "$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256
echo 'host all all all scram-sha-256' >> $D/db/pg_hba.conf
$BIN/pg_ctl -D $D/db -w -o '-k /tmp -c listen_addresses=' start
$BIN/createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
$BIN/pg_ctl -D $D/db -w stop; exec $BIN/postgres -D $D/db -k /tmp -c listen_addresses='*'
"""
"""What the image's own entry does."""


def filled(value):
    """Fill in what compose takes from `.env`: ${NAME:?} and ${NAME:-default}."""
    text = json.dumps(value)
    for name, given in ENV.items():
        for form in ("${%s:?}", "${%s:-localhost}"):
            text = text.replace(form % name, given)
    assert "${" not in text
    return json.loads(text)


def start(name, service):
    """Return the command of a service's container."""
    words = service.get("command", [])
    entries = {
        "slicecast": [*SLICECAST, *words],
        "orthanc": ["Orthanc", "/etc/orthanc/orthanc.json"],
        "postgres": ["sh", "-ec", POSTGRES],
        "prometheus": ["prometheus", *words],
    }
    return entries.get(name, words)


def prepare(machine, service):
    """Put a service's files where its volumes want them, and make the other volumes' folders."""
    for source, target in (volume.split(":")[:2] for volume in service["volumes"]):
        inside = Path(f"/proc/{machine.pid}/root{machine.root}{target}")
        if source.startswith("./"):
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, inside)
        else:
            inside.mkdir(parents=True, exist_ok=True)
            inside.chmod(0o777)


@pytest.fixture(scope="module")
def services():
    content = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return {name: filled(service) for name, service in content["services"].items()}


def test_every_image_has_a_version(services):
    assert all(
        string.digits.find(service["image"].rpartition(":")[2].lstrip("v")[0]) >= 0 for service in services.values()
    )


def test_worker_processes_have_memory_to_share_the_open_scans(services):
    assert int(services["slicecast"]["shm_size"].removesuffix("gb")) << 30 > MAX_BYTES


def test_the_services_work_together(services, tmp_path):
    missing = [name for name in PROGRAMS if shutil.which(name, path="/usr/bin:/usr/sbin") is None]
    if (
        os.getuid() != 0
        or missing
        or not ORTHANC_PLUGIN.exists()
        or not list(Path("/usr/lib/postgresql").glob("*/bin"))
    ):
        pytest.skip("needs root and apt-get install caddy prometheus orthanc orthanc-dicomweb postgresql")
    addresses = {name: service["networks"]["inside"]["ipv4_address"] for name, service in services.items()}
    addresses[ENV["SLICECAST_NAME"]] = addresses["caddy"]
    with network({**addresses, "laptop": "172.31.250.99"}, tmp_path) as machines, ExitStack() as stack:
        own = {
            "PATH": os.environ["PATH"],
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT / "lib"),
            "SLICECAST_HOME": "/weights",
            "SLICECAST_USERS": "/state/users.json",
            "SLICECAST_CONFIGS": "/opt/slicecast/share/slicecast/configs",
            "XDG_DATA_HOME": "/data",
        }
        configs = Path(f"/proc/{machines['slicecast'].pid}/root/mnt/root/opt/slicecast/share/slicecast/configs")
        shutil.copytree(ROOT / "configs", configs)
        for name, service in services.items():
            prepare(machines[name], service)
        slicecast = machines["slicecast"]
        token = run(*slicecast.inside([*SLICECAST, "users", "add", "anna"], env=own)).strip()
        for name in ("postgres", "orthanc", "caddy", "prometheus", "slicecast"):
            env = {**own, **services[name].get("environment", {})}
            user = "postgres:" if name == "postgres" else "root"
            command = machines[name].inside(start(name, services[name]), env=env, user=user)
            stack.enter_context(running(command, tmp_path / f"{name}.log"))
        scan = read_volume(SAMPLES / "studies" / "ct_abdomen_b.nii.gz")
        write_dicom_series(tmp_path / "dicom", scan, name="ct_abdomen_b")
        root = Path(f"/proc/{machines['caddy'].pid}/root/mnt/root/data/caddy/pki/authorities/local/root.crt")
        words = [sys.executable, Path(__file__).parent / "laptop.py", ENV["SLICECAST_NAME"], token, tmp_path, root]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'lib'}:{ROOT / 'tests'}", **ENV}
        said = json.loads(run(*machines["laptop"].inside(words, env=env)).splitlines()[-1])
        query = "select count(*) from slicecast_events"
        database = ["psql", "-h", "postgres", "-U", "slicecast", "-d", "slicecast", "-Atc", query]
        events = run(*slicecast.inside(database, env={**own, "PGPASSWORD": ENV["DATABASE_PASSWORD"]}))
    assert said == {"mask": 1, "metrics": 401, "up": ["1"], "series": ["CT", "SEG"]}
    assert int(events) > 0
