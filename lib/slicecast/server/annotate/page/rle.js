// Run lengths as COCO writes them: pixels column by column, runs of 0 and 1 in turn, numbers in letters of 5 bits, from
// the fourth run on as the difference to the run before last.

/** Return the pixels of a mask, row by row, from its compressed run lengths. */
export function decode({ size: [rows, columns], counts }) {
  const mask = new Uint8Array(rows * columns);
  const runs = numbers(counts);
  let at = 0;
  runs.forEach((run, place) => {
    if (place % 2) for (let pixel = at; pixel < at + run; pixel++) mask[(pixel % rows) * columns + Math.floor(pixel / rows)] = 1;
    at += run;
  });
  return mask;
}

/** Return a mask's compressed run lengths. */
export function encode(mask, rows, columns) {
  const runs = [];
  let value = 0, run = 0;
  for (let pixel = 0; pixel < rows * columns; pixel++) {
    const now = mask[(pixel % rows) * columns + Math.floor(pixel / rows)] ? 1 : 0;
    if (now !== value) { runs.push(run); run = 0; value = now; }
    run++;
  }
  runs.push(run);
  const counts = runs.map((length, place) => letters(place > 2 ? length - runs[place - 2] : length)).join("");
  return { size: [rows, columns], counts };
}

function numbers(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, more = true, code = 0;
    while (more) {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << shift;
      more = (code & 0x20) !== 0;
      shift += 5;
    }
    if (code & 0x10) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function letters(value) {
  let text = "", more = true;
  while (more) {
    let code = value & 0x1f;
    value >>= 5;
    more = code & 0x10 ? value !== -1 : value !== 0;
    if (more) code |= 0x20;
    text += String.fromCharCode(code + 48);
  }
  return text;
}
