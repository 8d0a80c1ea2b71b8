"""A campaign on one page, as HTML that needs nothing else, or as PNG, and its curves.

A curve is None, or a sentence stands in its place, where there is not enough to draw.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slicecast.active.calibration import GATE
from slicecast.campaign.state import ReadingTask, State
from slicecast.campaign.summary import (
    agreements,
    calibration,
    calibration_words,
    learning_curve,
    people,
    progress,
    reliability_words,
)
from slicecast.errors import ConfigError

PAGES = Environment(loader=PackageLoader("slicecast.campaign", "pages"), autoescape=True, trim_blocks=True)

SIZE_INCH = (5.2, 3.2)
INK, SOFT, ACCENT = "#1f2933", "#cbd2d9", "#0b6e99"
SMOOTH = 5  # Cases in the moving mean of the learning curve
Put = Callable[[State, Axes], bool]  # Draws into axes; False, with nothing drawn, where there is too little


def write_report(state: State, file: Path, *, title: str) -> Path:
    """Write the report, by the file's ending `.html` or `.png`; raises ConfigError if the ending is another one."""
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
    return PAGES.get_template("report.html").render(
        title=title,
        progress=progress(state),
        people=people(state),
        agreements=agreements(state, against=(ReadingTask.SECOND, ReadingTask.GOLD)),
        plots={name: draw(state) for name, draw in plots.items()},
        calibration=calibration_words(calibration(state)),
        state=state,
    )


def draw_learning_curve(state: State) -> str | None:
    """Draw how alike the model's first answer and the submitted label were, case after case; SVG."""
    return _svg(state, _put_learning_curve)


def draw_calibration(state: State) -> str | None:
    """Draw each group of slices: how sure the model was, and how right; SVG."""
    return _svg(state, _put_calibration)


def draw_minutes(state: State) -> str | None:
    """Draw each person's active minutes per case; SVG."""
    return _svg(state, _put_minutes)


def put_curves(state: State, axes: Iterable[Axes]) -> None:
    """Draw the three curves into three axes."""
    for plot, put in zip(axes, (_put_learning_curve, _put_minutes, _put_calibration), strict=True):
        if not put(state, plot):
            plot.text(0.5, 0.5, "Not enough data yet", ha="center", color=INK)
            plot.set_axis_off()


def _put_learning_curve(state: State, axes: Axes) -> bool:
    curve = learning_curve(state)
    if not curve:
        return False
    numbers, dice = [point[0] for point in curve], [point[1] for point in curve]
    axes.plot(numbers, dice, "o", color=SOFT, markeredgecolor=INK, markersize=4, label="a case")
    axes.plot(numbers, _moving_mean(dice), color=ACCENT, label=f"mean of the last {SMOOTH}")
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    _dress(axes, "Model's first answer against what was submitted", "cases submitted", "Dice")
    return True


def _put_calibration(state: State, axes: Axes) -> bool:
    found = calibration(state)
    if found.before is None or found.after is None:
        return False
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle="--")
    for name, part, colour in (("raw", found.before, INK), (found.method, found.after, ACCENT)):
        predicted, true = [b[0] for b in part.bins], [b[1] for b in part.bins]
        axes.plot(predicted, true, "o-", color=colour, markersize=4, label=f"{name}: {reliability_words(part)}")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="upper left", fontsize=7)
    used = "used" if found.holds else f"not used: rank correlation below {GATE}"
    title = f"Confidence of {found.slices} slices of {found.volumes} cases ({used})"
    _dress(axes, title, "confidence", "true IoU")
    return True


def _put_minutes(state: State, axes: Axes) -> bool:
    busy = [person for person in people(state) if person.minutes is not None][:12]
    if not busy:
        return False
    names = [f"{person.who[:18]} ({person.cases})" for person in reversed(busy)]
    bars = axes.barh(names, [person.minutes or 0.0 for person in reversed(busy)], color=ACCENT, height=0.55)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.margins(x=0.15, y=0.3)
    _dress(axes, "Active minutes per case (median)", "minutes", "")
    return True


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _moving_mean(values: Sequence[float]) -> list[float]:
    windows = (values[max(0, n - SMOOTH + 1) : n + 1] for n in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _svg(state: State, put: Put) -> str | None:
    figure = Figure(figsize=SIZE_INCH, layout="constrained")
    FigureCanvasSVG(figure)
    if not put(state, figure.subplots()):
        return None
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return "<svg" + text.getvalue().partition("<svg")[2]
