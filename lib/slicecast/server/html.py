"""Renders the HTML pages. Self-contained, because a hospital may be offline; every value is escaped."""

from pathlib import Path
from typing import Any

import jinja2

PAGES = Path(__file__).parent / "pages"
CAMPAIGN_PAGES = Path(__file__).parent / "campaign" / "pages"

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([PAGES, CAMPAIGN_PAGES]), autoescape=True, undefined=jinja2.StrictUndefined
)


def render(template: str, **content: Any) -> str:
    """Fill in a template; a value that it needs and does not get is an error."""
    return _TEMPLATES.get_template(template).render(**content)
