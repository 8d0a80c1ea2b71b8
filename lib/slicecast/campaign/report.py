"""A campaign on one page, as HTML that needs nothing else, or as PNG."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from slicecast.campaign.plots import draw_calibration, draw_learning_curve, draw_minutes, put_curves
from slicecast.campaign.state import State, Task
from slicecast.campaign.summary import agreements, calibration, calibration_words, people, progress
from slicecast.errors import ConfigError

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2933}
table{border-collapse:collapse}th,td{text-align:left;padding:.2rem 1rem .2rem 0;border-bottom:1px solid #dfe4e9}
svg{max-width:32rem;height:auto}.soft{color:#66727f}"""

LITTLE = '<p class="soft">Not enough data yet.</p>'


def write_report(state: State, file: Path, *, title: str) -> Path:
    """Write the report, by the file's ending `.html` or `.png`.

    Raises:
        ConfigError: the ending is another one.
    """
    if file.suffix not in (".html", ".png"):
        raise ConfigError(f"The report {file} must end in .html or .png.")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".html":
        file.write_text(html_report(state, title=title), encoding="utf-8")
        return file
    figure = Figure(figsize=(15, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    counts = ", ".join(f"{count} {word}" for word, count in progress(state).items() if count)
    figure.suptitle(f"{title}: {counts or 'no cases'}", fontsize=11)
    put_curves(state, figure.subplots(1, 3))
    figure.savefig(file, dpi=110)
    return file


def html_report(state: State, *, title: str) -> str:
    """Return the report with readings of gold cases, which annotators should not see."""
    plots = {"Learning curve": draw_learning_curve, "Minutes": draw_minutes, "Calibration": draw_calibration}
    parts = [f"<h2>{name}</h2>{draw(state) or LITTLE}" for name, draw in plots.items()]
    parts.append(f"<p>{escape(calibration_words(calibration(state)))}</p>")
    persons = [
        (
            person.who,
            person.cases,
            "" if person.minutes is None else f"{person.minutes:.1f}",
            f"{person.total_minutes:.0f}",
        )
        for person in people(state)
    ]
    compared = [
        (a.case, a.who, a.against, f"{a.dice:.3f}", f"{a.nsd:.3f}", "" if a.hd95_mm is None else f"{a.hd95_mm:.1f}")
        for a in agreements(state, against=(Task.SECOND, Task.GOLD))
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
{_table(("status", "cases"), list(progress(state).items()))}
<h2>People</h2>{_table(("who", "cases", "median minutes a case", "minutes"), persons)}
<h2>Agreement</h2>{_table(("case", "reader", "against", "Dice", "NSD", "HD95 mm"), compared)}
{"".join(parts)}
<p class="soft">Events 1 to {state.number}, head {state.digest}. Research use; not a medical device.</p>
</body></html>
"""


def _table(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    if not lines:
        return LITTLE
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
