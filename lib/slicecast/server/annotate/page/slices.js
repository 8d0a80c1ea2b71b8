// One bar a slice: its height is the confidence, its colour says what is known; below it, prompts and locks.

const FOOT = 12;

export class SliceBar {
  constructor(canvas, onChoose) {
    this.canvas = canvas;
    this.shown = { count: 1, confidence: {}, locked: [], prompted: [] };
    const choose = ({ offsetX, pointerId }) => {
      canvas.setPointerCapture(pointerId);
      onChoose(Math.max(0, Math.min(this.shown.count - 1, Math.floor((offsetX / canvas.clientWidth) * this.shown.count))));
    };
    canvas.addEventListener("pointerdown", choose);
    canvas.addEventListener("pointermove", (event) => event.buttons && choose(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    new MutationObserver(() => this.draw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  /** Show slices: their `count`, `confidence` by number, and the `locked`, `prompted` and `suggested` ones. */
  show(shown) { this.shown = shown; this.draw(); }

  /** Mark the slice on view. */
  at(number) { this.here = number; this.draw(); }

  draw() {
    const { count, confidence, locked, prompted, suggested } = this.shown, scale = window.devicePixelRatio || 1;
    const colours = getComputedStyle(document.documentElement), colour = (name) => colours.getPropertyValue(`--${name}`);
    this.canvas.width = this.canvas.clientWidth * scale;
    this.canvas.height = this.canvas.clientHeight * scale;
    const draw = this.canvas.getContext("2d");
    draw.scale(scale, scale);
    const width = this.canvas.clientWidth / count, height = this.canvas.clientHeight - FOOT, gap = width > 4 ? 1 : 0;
    for (let number = 0; number < count; number++) {
      const sure = confidence[number], tall = sure === undefined || sure === null ? 0 : Math.max(0.04, sure) * (height - 4);
      draw.fillStyle = colour("line");
      draw.fillRect(number * width, height - 2, width - gap, 2);
      draw.fillStyle = locked.includes(number) ? colour("green") : sure < 0.5 ? colour("amber") : colour("blue");
      draw.fillRect(number * width, height - tall, width - gap, tall);
      const middle = (number + 0.5) * width;
      if (prompted.includes(number)) dot(draw, middle, height + 6, 3, colour("ink"));
      if (locked.includes(number)) dot(draw, middle, height + 6, 3, colour("green"));
      if (number === suggested) { draw.strokeStyle = colour("amber"); draw.lineWidth = 2; draw.strokeRect(number * width, 1, Math.max(width - gap, 3), height - 1); }
    }
    if (this.here !== undefined) { draw.fillStyle = colour("red"); draw.fillRect((this.here + 0.5) * width - 1, 0, 2, height); }
  }
}

function dot(draw, x, y, radius, colour) {
  draw.fillStyle = colour;
  draw.beginPath();
  draw.arc(x, y, radius, 0, 2 * Math.PI);
  draw.fill();
}
