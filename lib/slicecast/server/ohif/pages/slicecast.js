// What the viewer lacks for annotators. It is looked at twice a second, because the viewer changes its pages itself.
// - A stack of slices opens in its middle, and not at its end outside of the body.
// - In the mode MONAI Label the panel connects, and shows what there is of the case already, so that work goes on from
//   there. DICOM SEG are not listed in this mode: the viewer (3.10) would show one without its images, in black views.
// - There a bar stands above the viewer, with the case.
// - ?slice=axial:26 opens that slice, counted as the viewer counts.

import { Bar } from "./bar.js";

const LOOK_MS = 500;
const PANEL = "1"; // the panel's own segmentation

const centred = new Set();
const shown = new Set();
let jumped = "", bar = null;

const isLabelling = () => /\/monai-label\/?$/.test(location.pathname);
const viewports = () => (window.cornerstone?.getRenderingEngines?.() ?? []).flatMap((one) => one.getViewports()); // thumbnails have an engine too, the first where they come before the views
const volumeOf = (viewport) => window.cornerstone.cache.getVolume(viewport.getVolumeId?.() ?? "");
const panel = () => window.services.segmentationService.getSegmentations().find((one) => one.segmentationId === PANEL);
const labelmap = () => panel() && window.services.segmentationService.getLabelmapVolume(PANEL);

function centre(viewport) {
  const images = viewport.getImageIds?.() ?? [];
  if (images.length < 2 || centred.has(images[0]) || !viewport.getCornerstoneImage?.()) return;
  centred.add(images[0]);
  if (viewport.getCurrentImageIdIndex() === 0) viewport.setImageIdIndex(Math.floor(images.length / 2));
}

function jump() {
  const [axis, number] = (new URLSearchParams(location.search).get("slice") ?? "").split(":");
  if (jumped !== location.href && showSlice(axis, Number(number))) jumped = location.href;
}

function showSlice(axis, number) {
  const viewport = viewports().find((one) => one.id === `mpr-${axis}`);
  viewport?.scroll(number - 1 - viewport.getSliceIndex());
  return viewport;
}

function hideSegmentations() {
  const { displaySetService } = window.services;
  for (const set of displaySetService.getActiveDisplaySets().filter((one) => one.Modality === "SEG")) {
    displaySetService.deleteDisplaySet(set.displaySetInstanceUID);
  }
}

function connect() {
  const address = document.getElementById("monailabelServerURL")?.value;
  if (address && new URL(address).origin === location.origin) document.querySelector(".settingsTable button").click();
}

function seriesShown() {
  const { viewports: grid } = window.services.viewportGridService.getState();
  const uids = [...grid.values()].flatMap((one) => one.displaySetInstanceUIDs ?? []);
  return window.services.displaySetService.getDisplaySetByUID(uids[0])?.SeriesInstanceUID;
}

// The number of a name in the panel's segmentation; one that the panel does not know is added
function segmentIndex(name) {
  const service = window.services.segmentationService;
  const segments = Object.values(service.getSegmentation(PANEL).segments);
  const known = segments.find((segment) => segment?.label === name);
  if (known) return known.segmentIndex;
  const index = Math.max(0, ...segments.map((segment) => segment?.segmentIndex ?? 0)) + 1;
  service.addSegment(PANEL, { segmentIndex: index, label: name });
  return index;
}

// What there is of a case, with the panel's numbers; null where there is nothing
async function read(series) {
  const answer = await fetch(`/ohif/label/${series}`);
  if (answer.status !== 200) return null;
  const table = new Uint8Array(256);
  for (const [name, value] of Object.entries(JSON.parse(answer.headers.get("X-Slicecast-Labels")))) {
    table[value] = segmentIndex(name);
  }
  return new Uint8Array(await answer.arrayBuffer()).map((value) => table[value]);
}

// Change the voxels shown, by a function of what is shown and the place
function redraw(change) {
  const { voxelManager } = labelmap();
  voxelManager.setCompleteScalarDataArray(Uint8Array.from(voxelManager.getCompleteScalarDataArray(), change));
  const { eventTarget, triggerEvent } = window.cornerstone;
  triggerEvent(eventTarget, window.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED, { segmentationId: PANEL });
}

async function show(series) {
  const label = await read(series);
  if (label) redraw((shown, place) => shown || label[place]);
}

// Take back the draft's last change; what was painted in the viewer elsewhere stays
async function undo(series, back) {
  const before = await read(series);
  await back();
  const after = await read(series);
  redraw((shown, place) => (shown === (before?.[place] ?? 0) ? after?.[place] ?? 0 : shown));
}

function labelling() {
  hideSegmentations();
  const axial = viewports().find((one) => one.id === "mpr-axial");
  if (!axial || !volumeOf(axial)?.loadStatus?.loaded) return;
  jump();
  const series = seriesShown(), key = `${location.href} ${series}`;
  if (!series || shown.has(`${key} shown`)) return;
  if (labelmap()) {
    shown.add(`${key} shown`);
    bar ??= new Bar({ jump: showSlice, undo: (back) => undo(seriesShown(), back) });
    bar.open(series).catch((error) => bar.say(error.message, true));
    show(series).catch((error) => console.error("The label cannot be shown:", error));
  } else if (!shown.has(key)) {
    shown.add(key);
    connect();
  }
}

setInterval(() => {
  if (!window.services || !window.cornerstone?.cache) return;
  bar?.show(isLabelling());
  if (isLabelling()) labelling();
  else viewports().filter((one) => one.type === "stack").forEach(centre);
}, LOOK_MS);
