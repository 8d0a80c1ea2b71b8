"""What axe finds on a page."""

from typing import Any

import pytest
from labelserver import ROOT

AXE = ROOT / "lib" / "slicecast" / "server" / "annotate" / "node_modules" / "axe-core" / "axe.min.js"


def serious(page: Any, within: str = "html") -> list[tuple[str, list[str]]]:
    """Return axe's serious findings within a part of the page: the rule, and the elements that break it."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; `make install` does it")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("within => axe.run(within)", within)["violations"]
    return [(one["id"], [n["html"] for n in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")]
