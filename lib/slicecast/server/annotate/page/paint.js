// Painting on one slice: pixels row by row, 1 where the structure is.

/** Paint (or erase) a disc. */
export function disc(pixels, rows, columns, [column, row], radius, ink) {
  for (let r = Math.ceil(row - radius); r <= row + radius; r++) for (let c = Math.ceil(column - radius); c <= column + radius; c++) {
    if (r < 0 || c < 0 || r >= rows || c >= columns || (r - row) ** 2 + (c - column) ** 2 > radius ** 2) continue;
    pixels[r * columns + c] = ink;
  }
}

/** Return the pixels with every hole filled: what cannot be reached from the slice's border without crossing the structure. */
export function filled(pixels, rows, columns) {
  const outside = new Uint8Array(pixels.length), open = [];
  const reach = (pixel) => { if (!pixels[pixel] && !outside[pixel]) { outside[pixel] = 1; open.push(pixel); } };
  for (let row = 0; row < rows; row++) { reach(row * columns); reach(row * columns + columns - 1); }
  for (let column = 0; column < columns; column++) { reach(column); reach((rows - 1) * columns + column); }
  while (open.length) {
    const pixel = open.pop(), column = pixel % columns;
    if (column) reach(pixel - 1);
    if (column < columns - 1) reach(pixel + 1);
    if (pixel >= columns) reach(pixel - columns);
    if (pixel < pixels.length - columns) reach(pixel + columns);
  }
  return outside.map((out) => 1 - out);
}
