// Lines that run inside a structure, from vertex to vertex; voxels are (i, j, k).

const NEAR = 3; // slices; what is further away is not drawn

/** The slices, along a voxel axis, that a prompt is on or passes; ascending. */
export function slicesOf({ slices, vertices, ijk, low_ijk: low }, along) {
  if (!vertices) return slices ?? [(ijk ?? low)[along]];
  const at = vertices.map((vertex) => vertex[along]), first = Math.min(...at);
  return Array.from({ length: Math.max(...at) - first + 1 }, (_, place) => first + place);
}

/** Draw what of a line is near the slice on view, `here` along the axis `normal`; `at` tells where a voxel lies. */
export function trace(draw, vertices, { normal, here, at }) {
  draw.lineWidth = 2;
  draw.strokeStyle = draw.fillStyle = "#5ad18f";
  for (let end = 1; end < vertices.length; end++) {
    const [a, b] = [vertices[end - 1], vertices[end]], from = a[normal] - here, by = b[normal] - a[normal];
    const shares = by ? [-NEAR, NEAR].map((reach) => (reach - from) / by).sort((p, q) => p - q) : Math.abs(from) > NEAR ? [1, 0] : [0, 1];
    const [start, stop] = [Math.max(shares[0], 0), Math.min(shares[1], 1)];
    if (start > stop) continue;
    const between = (share) => at(a.map((index, place) => index + share * (b[place] - index)));
    draw.beginPath();
    draw.moveTo(...between(start));
    draw.lineTo(...between(stop));
    draw.stroke();
    if (by && from * (from + by) < 0) spot(draw, between(-from / by), 3);
  }
  for (const vertex of vertices) {
    const away = Math.abs(vertex[normal] - here);
    draw.globalAlpha = away ? 0.4 : 1;
    if (away <= NEAR) spot(draw, at(vertex), 5);
  }
  draw.globalAlpha = 1;
}

function spot(draw, [x, y], radius) {
  draw.beginPath();
  draw.arc(x, y, radius, 0, 2 * Math.PI);
  draw.fill();
}
