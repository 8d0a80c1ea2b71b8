// The scan and its structures, drawn by NiiVue. Voxels are (i, j, k) as stored; slices are counted along the session's axis.

import { Niivue, NVImage, SLICE_TYPE, DRAG_MODE, MULTIPLANAR_TYPE, SHOW_RENDER } from "./niivue.js";
import { trace } from "./line.js";

const WORLD_AXIS = { sagittal: 0, coronal: 1, axial: 2 };
const DRAW_MS = 120, STILL_MS = 500;
const LARGE = 3e6; // voxels; from so many on 3D keeps a person waiting where there is no graphics card
const COARSE = 3; // so many times smaller is 3D drawn then

export class Scan {
  /** Draw on a canvas of the page; `over` is the one above it, for prompts. */
  constructor(canvas, over) {
    Object.assign(this, { canvas, over, prompts: [], version: 0 });
    this.viewer = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.35, 0.75, 1, 0.7],
      crosshairWidth: 0.4,
      crosshairGap: 6,
      isOrientCube: false,
      isNearestInterpolation: false,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      multiplanarLayout: MULTIPLANAR_TYPE.GRID,
      dragAndDropEnabled: false,
      isColorbar: false,
      isRadiologicalConvention: true,
      show3Dcrosshair: true,
      logLevel: "error",
      fontColor: [0.8, 0.85, 0.9, 1],
      mouseEventConfig: {
        leftButton: { primary: DRAG_MODE.crosshair, withShift: DRAG_MODE.crosshair, withCtrl: DRAG_MODE.pan },
        rightButton: DRAG_MODE.callbackOnly,
        centerButton: DRAG_MODE.pan,
      },
    });
  }

  /** Show a scan, the content of its NIfTI file, in place of the one before. */
  async open(content) {
    const { viewer } = this;
    if (!this.attached) await this.attach();
    const scan = await NVImage.new(content, "scan.nii", "gray");
    this.size = scan.hdr.dims.slice(1, 4);
    this.matrix = scan.hdr.affine;
    this.inverse = inverted(this.matrix);
    const { opacity = 0.5 } = this.mask ?? {};
    this.mask = NVImage.zerosLike(scan, "uint8");
    Object.assign(this.mask, { name: "structures", opacity });
    Object.assign(this.mask.hdr, { scl_slope: 1, scl_inter: 0 });
    this.held = {}; // by structure, the slices on which it may be
    this.stale = new Set(); // slices that are not shown yet as they are
    this.prompts = [];
    this.picture = null;
    const large = this.size[0] * this.size[1] * this.size[2] > LARGE;
    this.coarse = large && this.software ? COARSE : 1;
    viewer.opts.show3Dcrosshair = !this.software;
    Object.assign(viewer.scene, { crosshairPos: [0.5, 0.5, 0.5], pan2Dxyzmm: [0, 0, 0, 1] });
    const { toRAS } = this.mask;
    this.mask.toRAS = null; // a mask without voxels need not be rendered, which takes as long as the scan
    viewer.volumes = [scan, this.mask];
    viewer.setVolume(scan, 0);
    this.mask.toRAS = toRAS;
    viewer.overlayTexture = viewer.overlayTextureID = viewer.rgbaTex(viewer.overlayTexture, viewer.gl.TEXTURE2, viewer.back.dims);
    viewer.updateInterpolation(1);
    this.colours = [];
  }

  async attach() {
    const { viewer } = this;
    await viewer.attachToCanvas(this.canvas, false);
    const { gl } = viewer, known = gl.getExtension("WEBGL_debug_renderer_info");
    this.software = /swiftshader|llvmpipe|software/i.test(known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : "");
    if (this.software) this.keep3D();
    viewer.onLocationChange = () => this.onMove?.();
    const draw = viewer.drawScene.bind(viewer);
    viewer.drawScene = (...given) => { const drawn = draw(...given); this.drawOver(); return drawn; };
    this.attached = true;
  }

  /** Count slices along a session's axis. */
  cut(axis) {
    this.plane = WORLD_AXIS[axis];
    this.along = this.axisAlong(this.plane);
    this.across = [0, 1, 2].filter((place) => place !== this.along); // of a slice: columns, then rows
    this.paintPlane = 2 - this.plane; // as NiiVue numbers its views
    if (this.only) this.arrange("slice");
  }

  /** Without a graphics card 3D is drawn, small, when it changed and things are still; in between its picture is shown. */
  keep3D() {
    const { viewer } = this, draw = viewer.draw3D.bind(viewer);
    viewer.draw3D = (where) => {
      const { renderAzimuth, renderElevation, volScaleMultiplier } = viewer.scene;
      const seen = [where, renderAzimuth, renderElevation, volScaleMultiplier].join();
      const [left, top, width, height] = where, small = [width, height].map((side) => Math.ceil(side / this.coarse));
      if (this.picture?.seen === seen) {
        viewer.screenSlices.push(this.picture.tile);
        if (this.picture.version !== this.version) this.drawWhenStill();
        return;
      }
      draw([left, top, ...small]);
      const tile = { ...viewer.screenSlices.pop(), leftTopWidthHeight: [...where] }, canvas = new OffscreenCanvas(...small);
      viewer.screenSlices.push(tile);
      canvas.getContext("2d").drawImage(this.canvas, left, top, ...small, 0, 0, ...small);
      this.picture = { seen, tile, canvas, version: this.version };
    };
  }

  drawWhenStill() {
    clearTimeout(this.still);
    this.still = setTimeout(() => { this.picture = null; this.viewer.drawScene(); }, STILL_MS);
  }

  spacing(place) { return Math.hypot(...[0, 1, 2].map((row) => this.matrix[row][place])); }

  get voxelMl() { return (this.spacing(0) * this.spacing(1) * this.spacing(2)) / 1000; }

  get slices() { return this.size[this.along]; }
  get rows() { return this.size[this.across[1]]; }
  get columns() { return this.size[this.across[0]]; }

  /** Give the structures their colours, [red, green, blue] each, in the order of their values from 1. */
  colour(colours) {
    const all = [[0, 0, 0], ...colours];
    this.mask.setColormapLabel({
      R: all.map((c) => c[0]), G: all.map((c) => c[1]), B: all.map((c) => c[2]),
      A: all.map((_, place) => (place ? 255 : 0)), I: all.map((_, place) => place),
      labels: all.map((_, place) => String(place)),
    });
    this.colours = all;
  }

  /** Show the structures filled or as outlines. */
  outline(on) {
    this.viewer.opts.atlasOutline = on ? 1 : 0;
    this.drawWhole();
  }

  opacity(value) { this.mask.opacity = value; this.drawAll(); }

  /** Set the darkest and brightest grey value shown, as shares of the scan's range. */
  contrast(low, high) {
    const scan = this.viewer.volumes[0];
    const [darkest, brightest] = [scan.robust_min ?? scan.global_min, scan.robust_max ?? scan.global_max];
    scan.cal_min = darkest + (brightest - darkest) * low;
    scan.cal_max = Math.max(darkest + (brightest - darkest) * high, scan.cal_min + 1e-6);
    this.drawScan();
  }

  /** Whether the grey values are Hounsfield units, as far as they tell: air is far below water. */
  get isCt() { return this.viewer.volumes[0].global_min < -500; }

  /** Set the grey values shown by their centre and width; without them the scan's own range. */
  window(centre, width) {
    if (!width) return this.contrast(0, 1);
    Object.assign(this.viewer.volumes[0], { cal_min: centre - width / 2, cal_max: centre + width / 2 });
    this.drawScan();
  }

  drawScan() {
    this.viewer.refreshLayers(this.viewer.volumes[0], 0); // not the structures above it
    this.version++;
    this.viewer.drawScene();
  }

  /** Look from all sides ("all"), or only at the slices ("slice"). */
  arrange(how) {
    this.only = how === "slice";
    const only = [SLICE_TYPE.SAGITTAL, SLICE_TYPE.CORONAL, SLICE_TYPE.AXIAL][this.plane];
    this.viewer.setSliceType(this.only ? only : SLICE_TYPE.MULTIPLANAR);
  }

  /** Return a slice of one structure, row by row. */
  slice(value, number) {
    const found = new Uint8Array(this.rows * this.columns);
    this.each(number, (pixel, voxel) => { found[pixel] = this.mask.img[voxel] === value ? 1 : 0; });
    return found;
  }

  /** Put one structure's slice in place of what was shown of it there. */
  put(value, number, pixels) {
    const image = this.mask.img, held = (this.held[value] ??= new Set());
    if (!pixels && !held.has(number)) return;
    this.each(number, (pixel, voxel) => {
      if (pixels && pixels[pixel]) image[voxel] = value;
      else if (image[voxel] === value) image[voxel] = 0;
    });
    if (pixels) held.add(number); else held.delete(number);
    this.stale.add(number);
    this.drawSoon();
  }

  clear() { this.mask.img.fill(0); this.drawAll(); this.held = {}; }

  each(number, work) {
    const step = [1, this.size[0], this.size[0] * this.size[1]];
    const [columns, rows] = this.across;
    for (let row = 0, pixel = 0; row < this.rows; row++) {
      let voxel = number * step[this.along] + row * step[rows];
      for (let column = 0; column < this.columns; column++, pixel++, voxel += step[columns]) work(pixel, voxel);
    }
  }

  /** Draw what changed of the structures: the slices put since, or all; never the scan below them, the most work. */
  draw() {
    const { viewer, stale } = this, before = viewer.overlayTexture;
    this.drawn = performance.now();
    if (this.whole || viewer.opts.atlasOutline) viewer.refreshLayers(this.mask, 1);
    else for (const number of stale) this.send(number);
    if (before !== viewer.overlayTexture) viewer.gl.deleteTexture(before); // NiiVue leaves that to chance, and it is large
    this.whole = false;
    this.version++;
    stale.clear();
    viewer.drawScene();
  }

  /** Send one slice to the graphics card, with edges as NiiVue's own: the fewer neighbours are set, the fainter. */
  send(number) {
    const { img2RASstep: steps, img2RASstart: starts, permRAS, dimsRAS: [, ...dims], img, opacity } = this.mask;
    const strides = [1, this.size[0], this.size[0] * this.size[1]], flat = permRAS.findIndex((place) => Math.abs(place) === this.along + 1);
    const first = [0, 0, 0], size = [...dims];
    first[flat] = steps[flat] > 0 ? number : dims[flat] - 1 - number;
    size[flat] = 1;
    const pixels = new Uint8Array(size[0] * size[1] * size[2] * 4);
    let at = 0;
    for (let z = first[2]; z < first[2] + size[2]; z++) {
      for (let y = first[1]; y < first[1] + size[1]; y++) {
        let voxel = starts[0] + first[0] * steps[0] + starts[1] + y * steps[1] + starts[2] + z * steps[2];
        for (let x = 0; x < size[0]; x++, at += 4, voxel += steps[0]) {
          if (!img[voxel]) continue;
          pixels.set(this.colours[img[voxel]] ?? [0, 0, 0], at);
          pixels[at + 3] = (255 * opacity * strides.reduce((sum, stride) => sum + (img[voxel - stride] ? 1 : 0) + (img[voxel + stride] ? 1 : 0), 1)) / 7;
        }
      }
    }
    const { gl, overlayTexture } = this.viewer;
    gl.activeTexture(gl.TEXTURE2); // where NiiVue keeps it
    gl.bindTexture(gl.TEXTURE_3D, overlayTexture);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, ...first, ...size, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  }

  /** Draw every slice that holds a structure. */
  drawAll() { for (const slices of Object.values(this.held)) for (const number of slices) this.stale.add(number); this.drawSoon(); }

  drawWhole() { this.whole = true; this.drawSoon(); }

  drawSoon() {
    if (this.waiting) return;
    const wait = Math.max(0, DRAW_MS - (performance.now() - (this.drawn ?? 0)));
    this.waiting = setTimeout(() => { this.waiting = null; this.draw(); }, wait);
  }

  /** Return the voxel under a place on the canvas (CSS pixels), or null; in 3D and outside the scan there is none. */
  voxelAt(x, y) {
    const scale = this.viewer.uiData.dpr ?? 1;
    const tile = this.viewer.tileIndex(x * scale, y * scale);
    if (tile < 0 || this.viewer.screenSlices[tile].axCorSag > SLICE_TYPE.SAGITTAL) return null;
    const place = this.viewer.screenXY2TextureFrac(x * scale, y * scale, tile, false);
    if (place[0] < 0 || place.some((share) => share < 0 || share > 1)) return null;
    return { ijk: this.voxel(this.viewer.frac2mm(place, 0, true)), tile, plane: this.viewer.screenSlices[tile].axCorSag };
  }

  /** Return where a voxel of the slice on view lies on the canvas (CSS pixels): the other way round. */
  canvasAt(ijk, tile = this.viewer.screenSlices.findIndex((one) => one.axCorSag === this.paintPlane)) {
    const scale = this.viewer.uiData.dpr ?? 1, [left, top, width, height] = this.viewer.screenSlices[tile].leftTopWidthHeight;
    const share = (u, v) => this.viewer.screenXY2TextureFrac(left + width * u, top + height * v, tile, false);
    const corner = share(0.25, 0.25), wanted = this.viewer.mm2frac(this.world(ijk), 0, true);
    const along = (end) => {
      const side = [0, 1, 2].map((axis) => end[axis] - corner[axis]);
      const length = side.reduce((sum, part) => sum + part * part, 0);
      return 0.25 + (0.5 * side.reduce((sum, part, axis) => sum + part * (wanted[axis] - corner[axis]), 0)) / length;
    };
    return [(left + width * along(share(0.75, 0.25))) / scale, (top + height * along(share(0.25, 0.75))) / scale];
  }

  /** Draw above the scan: the picture of 3D, and on the views whose slice they are on, prompts. */
  drawOver() {
    if (this.along === undefined) return;
    const { over, picture, here } = this, scale = window.devicePixelRatio || 1, draw = over.getContext("2d");
    over.width = over.clientWidth * scale;
    over.height = over.clientHeight * scale;
    if (picture && this.viewer.screenSlices.includes(picture.tile)) draw.drawImage(picture.canvas, ...picture.tile.leftTopWidthHeight);
    draw.scale(scale, scale);
    this.viewer.screenSlices.forEach(({ axCorSag: plane }, tile) => {
      if (plane > SLICE_TYPE.SAGITTAL) return;
      const normal = this.axisAlong(2 - plane);
      for (const { kind, ijk, positive, vertices, low_ijk: low, high_ijk: high } of this.prompts) {
        if (kind === "line") trace(draw, vertices, { normal, here: here[normal], at: (place) => this.canvasAt(place, tile) });
        if (kind === "point" && ijk[normal] === here[normal]) dot(draw, this.canvasAt(ijk, tile), positive);
        if (kind === "box" && low[normal] <= here[normal] && here[normal] <= high[normal]) frame(draw, this.canvasAt(low, tile), this.canvasAt(high, tile));
      }
    });
  }

  mark(prompts) { this.prompts = prompts; this.drawOver(); }

  /** The voxel axis that runs along a world axis. */
  axisAlong(world) {
    const row = this.matrix[world].slice(0, 3).map((value, place) => Math.abs(value) / this.spacing(place));
    return row.indexOf(Math.max(...row));
  }

  voxel(mm) {
    return this.inverse.map((row, place) => {
      const index = Math.round(row[0] * mm[0] + row[1] * mm[1] + row[2] * mm[2] + row[3]);
      return Math.min(Math.max(index, 0), this.size[place] - 1);
    });
  }

  world(ijk) { return this.matrix.slice(0, 3).map((row) => row[0] * ijk[0] + row[1] * ijk[1] + row[2] * ijk[2] + row[3]); }

  /** The voxel at the crosshair. */
  get here() { return this.voxel(this.viewer.frac2mm(this.viewer.scene.crosshairPos, 0, true)); }

  goTo(ijk) {
    this.viewer.scene.crosshairPos = this.viewer.mm2frac(this.world(ijk), 0, true);
    this.viewer.drawScene();
    this.onMove?.();
  }

  goToSlice(number) { this.goTo(this.here.map((index, place) => (place === this.along ? number : index))); }
}

function dot(draw, [x, y], positive) {
  draw.lineWidth = 2;
  draw.strokeStyle = "#fff";
  draw.fillStyle = positive ? "#1e9e63" : "#d0342c";
  draw.beginPath();
  draw.arc(x, y, 6, 0, 2 * Math.PI);
  draw.fill();
  draw.stroke();
  draw.fillStyle = "#fff";
  draw.fillRect(x - 3, y - 0.75, 6, 1.5);
  if (positive) draw.fillRect(x - 0.75, y - 3, 1.5, 6);
}

function frame(draw, [x, y], [u, v]) {
  draw.lineWidth = 2;
  draw.setLineDash([5, 4]);
  draw.strokeStyle = "#f0b04a";
  draw.strokeRect(Math.min(x, u), Math.min(y, v), Math.abs(u - x), Math.abs(v - y));
  draw.setLineDash([]);
}

function inverted(m) {
  const [[a, b, c, p], [d, e, f, q], [g, h, i, r]] = m;
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const rows = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((value) => value / determinant));
  return rows.map((row) => [...row, -(row[0] * p + row[1] * q + row[2] * r)]);
}
