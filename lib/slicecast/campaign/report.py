"""Numbers about a campaign, their curves, and both on one page: HTML that needs nothing else, or PNG.

What there is too little of is absent, never guessed: a curve is None, or a sentence stands in its place.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slicecast.active.calibration import GATE, Calibration, Pair, Reliability, SliceFeatures, calibrate
from slicecast.campaign.state import Case, ReadingTask, State, Status
from slicecast.errors import ConfigError

MIN_POINTS = 3  # Fewer submitted cases do not make a curve


@dataclass(frozen=True, slots=True)
class Person:
    """What one person did."""

    who: str
    cases: int  # submitted
    minutes: float | None  # of active time a case, median; None without any
    total_minutes: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """A comparison of two labels of one case."""

    case: str
    against: str
    who: str
    dice: float
    nsd: float
    hd95_mm: float | None
    tolerance_mm: float


def progress(state: State) -> dict[str, int]:
    """Count the cases by status; gold ones are left out."""
    counts = {str(status): 0 for status in Status}
    for case in _ordinary(state):
        counts[str(case.status)] += 1
    return counts


def people(state: State) -> list[Person]:
    """Say what each person did, the busiest first."""
    readings = [reading for case in state.cases.values() for reading in case.readings if reading.who != "server"]
    names = sorted({reading.who for reading in readings})
    found = [_person(name, [reading.active_s / 60 for reading in readings if reading.who == name]) for name in names]
    return sorted(found, key=lambda person: (-person.cases, person.who))


def agreements(state: State, *, against: Iterable[str] = (ReadingTask.SECOND,)) -> list[Agreement]:
    """Return the comparisons with second readings or gold truths, oldest first."""
    wanted = {str(name) for name in against}
    found = [(c["when_s"], case.name, c) for case in state.cases.values() for c in case.comparisons]
    return [
        Agreement(name, c["against"], c["who"], c["dice"], c["nsd"], c["hd95_mm"], c["tolerance_mm"])
        for _, name, c in sorted(found, key=lambda entry: entry[:2])
        if c["against"] in wanted
    ]


def learning_curve(state: State) -> list[tuple[int, float, float]]:
    """Return (cases so far, Dice of the model's first answer with what was submitted, minutes so far)."""
    found = []
    for case in _ordinary(state):
        reading = case.reading(ReadingTask.ANNOTATE)
        drafts = [c for c in case.comparisons if c["against"] == "draft"]
        if reading is not None and drafts:
            found.append((reading.when_s, drafts[-1]["dice"], reading.active_s / 60))
    found.sort()
    total, curve = 0.0, []
    for count, (_, dice, minutes) in enumerate(found, start=1):
        total += minutes
        curve.append((count, dice, total))
    return curve if len(curve) >= MIN_POINTS else []


def calibration(state: State) -> Calibration:
    """Return what the submitted labels taught about the newest model's confidence."""
    pairs, model = slice_pairs(state)
    return _calibrated(tuple(pairs), model)


def slice_pairs(state: State) -> tuple[list[Pair], str]:
    """Return the slices that a model answered and a person submitted, oldest first, and that newest model's hash."""
    found = sorted(
        ((c["when_s"], case.name, c) for case in state.cases.values() for c in case.comparisons if c.get("signs")),
        key=lambda entry: entry[:2],
    )
    model = str(found[-1][2].get("model_hash") or "") if found else ""
    of_model = [(name, c["signs"]) for _, name, c in found if str(c.get("model_hash") or "") == model]
    pairs = [Pair(name, SliceFeatures.from_row(row[:-1]), float(row[-1])) for name, rows in of_model for row in rows]
    return pairs, model


def calibration_words(found: Calibration) -> str:
    """Say in a sentence how well the confidence holds; empty where there is too little."""
    if found.before is None or found.after is None:
        return ""
    use = "The calibrated one is used." if found.holds else f"Below {GATE} it is not used: slices go by even steps."
    counts = f"{found.slices} slices of {found.volumes} submitted cases, each case judged by the others"
    words = f"as the model says it: {reliability_words(found.before)}; calibrated: {reliability_words(found.after)}"
    return f"{counts}. Confidence {words}. {use}"


def reliability_words(found: Reliability) -> str:
    """Return the three numbers in words."""
    return f"rank correlation {found.spearman:.2f}, calibration error {found.ece:.2f}, AURC {found.aurc:.2f}"


@lru_cache(maxsize=2)
def _calibrated(pairs: tuple[Pair, ...], model: str) -> Calibration:
    """The page and the server ask for the same one again and again."""
    return calibrate(pairs, model=model)


def rows(state: State) -> list[dict[str, Any]]:
    """Return one row per case for a table."""
    return [_row(case) for case in sorted(state.cases.values(), key=lambda case: case.name)]


def _row(case: Case) -> dict[str, Any]:
    reading = case.reading(ReadingTask.ANNOTATE)
    second: Mapping[str, Any] = next((c for c in reversed(case.comparisons) if c["against"] == ReadingTask.SECOND), {})
    data: Mapping[str, Any] = reading.data if reading else {}
    return {
        "case": case.name,
        "status": str(case.status),
        "annotator": reading.who if reading else "",
        "submitted_s": reading.when_s if reading else "",
        "active_s": round(reading.active_s, 1) if reading else "",
        "predictions": case.predictions,
        "version": data.get("version", ""),
        "label_sha256": data.get("sha256", ""),
        "model": data.get("model", ""),
        "model_hash": data.get("model_hash", ""),
        "note": case.note,
        "second_reader": second.get("who", ""),
        "second_dice": second.get("dice", ""),
        "second_nsd": second.get("nsd", ""),
        "second_hd95_mm": second.get("hd95_mm", ""),
        "gold": int(case.gold),
    }


def _person(name: str, minutes: Sequence[float]) -> Person:
    return Person(name, len(minutes), median(minutes) if minutes else None, sum(minutes))


def _ordinary(state: State) -> list[Case]:
    return [case for case in state.cases.values() if not case.gold]


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
