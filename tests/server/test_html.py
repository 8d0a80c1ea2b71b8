"""Pages are rendered with every value escaped."""

from slicecast.server.html import render


def test_names_are_escaped():
    info = {
        "datastore": {"completed": 1, "total": 2},
        "models": {"sam2": {}},
        "labels": ["<script>alert(1)</script>"],
        "strategies": {},
        "version": "1.2.3",
    }
    page = render("landing.html", info=info, model="sam2_nano", url="http://127.0.0.1:8000", user=None, manual=False)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<code>http://127.0.0.1:8000</code>" in page and "<dd>none</dd>" in page
