"""Codes for labels' names."""

import pytest

from slicecast.dicom.terminology import term_for
from slicecast.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("Spleen", "78961009", None),
        ("kidney_left", "64033007", "Left"),
        ("Right Kidney", "64033007", "Right"),
        ("left ventricle", "87878005", None),
        ("tumour", "108369006", None),
        ("our own", "85756007", None),
    ],
)
def test_names(name, code, side):
    term = term_for(name)
    assert term.type[0] == code
    assert (term.side[2] if term.side else None) == side


def test_a_wrong_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "terminology.yaml").write_text("default: {category: [1, SCT], type: [1, SCT, x]}\nstructures: []\n")
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
    with pytest.raises(ConfigError, match="write \\[value, scheme, meaning\\]"):
        term_for("x")
