"""Write the golden files anew, on purpose: `python tests/golden/update.py [--recordings]`.

The recordings (a session's and a campaign's database) are work of an earlier version that must stay readable. They are
written anew only when asked for, and then what was stored before is no longer tested.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
FILES = Path(__file__).parent / "files"


def write(name: str, content: object) -> None:
    """Write one golden file."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (FILES / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Write all files, the recordings only with --recordings."""
    import surface

    write("help.json", surface.helps())
    write("commands.json", surface.listed(surface.command("--help")))
    write("yaml_keys.json", surface.yaml_keys())
    write("masks.json", surface.masks())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with surface.server(folder) as client:
            write("openapi.json", client.get("/openapi.json").json())
            write("infer_masks.json", surface.infer_masks(client, folder))
            write("metrics.json", surface.metric_names(client))
            if "--recordings" in sys.argv:
                write("session_id.json", surface.record_session(client))
                surface.record_campaign(client)
        if "--recordings" in sys.argv:
            keep(folder)
    write("recordings.json", recordings(surface))
    options = ["--update-golden", *(["--record-golden"] if "--recordings" in sys.argv else [])]
    subprocess.run([sys.executable, "-m", "pytest", "-q", str(FILES.parent), *options], check=True)


def keep(folder: Path) -> None:
    """Copy the databases out of a stopped server's folders."""
    (FILES / "campaign").mkdir(exist_ok=True)
    for name, target in (("sessions.sqlite", FILES), ("campaign.db", FILES / "campaign")):
        (found,) = folder.rglob(name)
        (target / name).unlink(missing_ok=True)
        with closing(sqlite3.connect(found)) as old, closing(sqlite3.connect(target / name)) as new:
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")


def recordings(surface: object) -> dict[str, object]:
    """Say what the recordings give today."""
    with tempfile.TemporaryDirectory() as name:
        return surface.replayed(Path(name), FILES)


if __name__ == "__main__":
    main()
