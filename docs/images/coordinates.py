"""Draw coordinates.png, the picture of docs/coordinates.md: `python docs/images/coordinates.py`."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

I_COLOUR, J_COLOUR, K_COLOUR, GREY = "#d1495b", "#2e86ab", "#3a7d44", "#555555"


def main() -> None:
    figure = Figure(figsize=(15, 5.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    volume, plane, model = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    draw_volume(volume)
    draw_slice(plane)
    draw_window(model)
    figure.savefig(Path(__file__).with_name("coordinates.png"), dpi=100)


def draw_volume(plot: Axes) -> None:
    """A canonical volume: slices stacked along k."""
    plot.set_title("1. Canonical volume: i to Left, j to Posterior, k to Superior")
    for n in range(4):
        y = 1.3 * n
        corners = [(0, y), (4, y), (5.6, y + 1.6), (1.6, y + 1.6)]
        plot.add_patch(Polygon(corners, facecolor="#f4f4f4", edgecolor=GREY, alpha=0.9, zorder=n))
        plot.text(5.8, y + 1.3, f"axial slice {n}", color=GREY, va="center")
    for end, words, colour in (
        ((4.6, 0), "i (x, Left)", I_COLOUR),
        ((1.95, 1.95), "j (y, Posterior)", J_COLOUR),
        ((0, 6.1), "k (z, Superior)", K_COLOUR),
    ):
        plot.annotate("", xy=end, xytext=(0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2}, zorder=9)
        offset = {"i (x, Left)": (0, -0.35), "j (y, Posterior)": (0.15, 0.15), "k (z, Superior)": (0.1, 0.2)}[words]
        plot.text(end[0] + offset[0], end[1] + offset[1], words, color=colour, zorder=10)
    plot.plot(0, 0, "o", color="black", zorder=11)
    plot.text(-0.1, -0.75, "centre of voxel (0, 0, 0)\n= origin_mm, LPS", ha="left", va="center", fontsize=9)
    plot.set(xlim=(-0.6, 8.2), ylim=(-1.2, 6.8))
    plot.set_axis_off()


def draw_slice(plot: Axes) -> None:
    """Pixels of one slice."""
    plot.set_title("2. Axial slice: x = i, y = j, integer = pixel centre")
    for x in range(5):
        for y in range(4):
            plot.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#bbbbbb"))
            plot.plot(x, y, ".", color="#bbbbbb", markersize=4)
    plot.plot(3, 1, "+", markersize=18, markeredgewidth=2.5, color=I_COLOUR)
    plot.text(3.12, 0.72, "click (3, 1)", color=I_COLOUR)
    plot.add_patch(Rectangle((0, 1), 2, 2, fill=False, edgecolor=J_COLOUR, lw=2))
    plot.text(0.04, 2.75, "box 0, 1, 2, 3", color=J_COLOUR)
    plot.text(-0.5, 3.95, "corners lie on pixel centres; pixels 0..2 x 1..3 are in", color=J_COLOUR, fontsize=9)
    plot.set(xlim=(-0.8, 4.8), ylim=(4.3, -0.8), aspect="equal", xticks=range(5), yticks=range(4))
    plot.set_xlabel("x (columns)")
    plot.set_ylabel("y (rows, downwards)")


def draw_window(plot: Axes) -> None:
    """A row of the slice and the same stretch as model pixels."""
    plot.set_title("3. Window to model input: edges map to edges")
    for x in range(4):
        plot.add_patch(Rectangle((x, 2.2), 1, 1, fill=False, edgecolor=GREY))
        plot.plot(x + 0.5, 2.7, ".", color=GREY)
        plot.text(x + 0.5, 3.35, f"x = {10 + x}", ha="center", color=GREY)
    for u in range(8):
        plot.add_patch(Rectangle((u / 2, 0.6), 0.5, 0.8, fill=False, edgecolor=K_COLOUR))
        plot.plot((u + 0.5) / 2, 1.0, ".", color=K_COLOUR)
        plot.text((u + 0.5) / 2, 0.28, str(u), ha="center", color=K_COLOUR)
    for edge in (0, 4):
        plot.plot([edge, edge], [1.4, 2.2], ":", color="black")
    plot.annotate("", xy=(1.5, 1.0), xytext=(1.5, 2.7), arrowprops={"arrowstyle": "->", "color": I_COLOUR})
    plot.text(1.62, 1.75, "x = 11 becomes u = 2.5", color=I_COLOUR)
    plot.text(2, -0.2, "model pixels u", ha="center", color=K_COLOUR)
    plot.text(2, 3.75, "slice pixels of a window, x0 = 10, width 4", ha="center", color=GREY)
    plot.text(2, -0.75, "u = (x + 0.5 - x0) * S / width - 0.5,  here S = 8", ha="center", fontsize=11)
    plot.set(xlim=(-0.3, 4.3), ylim=(-1.1, 4.1))
    plot.set_axis_off()


if __name__ == "__main__":
    main()
