"""Pictures are drawn."""

from slicecast_lab.evaluation.picture import best_median_worst, draw_cases, draw_clicks
from slicecast_lab.evaluation.run import evaluate
from slicecast_lab.evaluation.settings import Settings


def test_best_median_and_worst_are_drawn(cases, service, tmp_path):
    done = evaluate(cases, service, Settings())
    ranked = best_median_worst(done.results)
    assert ranked["best"].final_dice >= ranked["median"].final_dice >= ranked["worst"].final_dice
    assert len({result.files.id for result in ranked.values()}) == 3
    assert set(best_median_worst(done.results[:1])) == {"best"}
    file = draw_cases(done, tmp_path / "new" / "cases.png", title="phantoms")
    assert file.read_bytes().startswith(b"\x89PNG") and len(list(file.parent.iterdir())) == 1


def test_dice_against_clicks_is_drawn(tmp_path):
    steps = [{"value": v, "low": v - 0.1, "high": v + 0.1, "count": 3} for v in (0.4, 0.6, 0.7)]
    assert draw_clicks({"phantoms": steps}, tmp_path / "clicks.svg").read_text().startswith("<?xml")
