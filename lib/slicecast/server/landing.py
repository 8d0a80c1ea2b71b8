"""The page at `/`: what is served, and where to go from here. Self-contained, because a hospital may be offline."""

from html import escape
from typing import Any

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Slicecast</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}
code{{background:#eee;padding:.1em .3em}}</style></head><body>
<h1>Slicecast</h1>
<p>Click on one slice, get the structure in the whole volume. {completed} of {total} images are labelled.</p>
<ul>
<li><b>Campaign</b>: <a href="campaign/">queue, results, review and progress</a>.</li>
<li><b>3D Slicer</b>: module <i>MONAI Label</i>, server <code>{url}</code>, then <i>Next Sample</i>.</li>
<li><b>OHIF</b>: <a href="ohif/">{url}/ohif/</a>, in this browser.</li>
<li><b>Programs</b>: <a href="info/">info</a>, <a href="datastore/?output=all">images and labels</a>,
<a href="openapi.json">OpenAPI</a>.</li>
</ul>
<p>Models: {models}. Labels: {labels}. Next image by: {strategies}.</p>
<p>Research use; not a medical device. Version {version}.</p>
</body></html>
"""


def landing_page(info: dict[str, Any], *, url: str) -> str:
    """Render the page from MONAI Label's `/info/`."""
    return PAGE.format(
        url=escape(url.rstrip("/")),
        completed=info["datastore"]["completed"],
        total=info["datastore"]["total"],
        models=_list(info["models"]),
        labels=_list(name for name in info["labels"] if name != "background"),
        strategies=_list(info["strategies"]),
        version=escape(info["version"]),
    )


def _list(names: Any) -> str:
    return ", ".join(f"<code>{escape(str(name))}</code>" for name in names) or "none"
