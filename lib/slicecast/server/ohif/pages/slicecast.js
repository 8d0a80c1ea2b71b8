"use strict";

// What the viewer lacks for annotators. It is looked at twice a second, because the viewer changes its pages itself.
// - A stack of slices opens in its middle, and not at its end outside of the body.
// - In the mode MONAI Label the panel connects, and shows what there is of the case already, so that work goes on from
//   there. DICOM SEG are not listed in this mode: the viewer (3.10) would show one without its images, in black views.
// - ?slice=axial:26 opens that slice, counted as the viewer counts.

const LOOK_MS = 500;
const PANEL = "1"; // the panel's own segmentation

const centred = new Set();
const shown = new Set();
let jumped = "";

const isLabelling = () => /\/monai-label\/?$/.test(location.pathname);
const viewports = () => window.cornerstone?.getRenderingEngines?.()?.[0]?.getViewports() ?? [];
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
  const viewport = viewports().find((one) => one.id === `mpr-${axis}`);
  if (!viewport || jumped === location.href) return;
  jumped = location.href;
  viewport.scroll(Number(number) - 1 - viewport.getSliceIndex());
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

async function show(series) {
  const answer = await fetch(`/ohif/label/${series}`);
  if (answer.status !== 200) return;
  const table = new Uint8Array(256);
  for (const [name, value] of Object.entries(JSON.parse(answer.headers.get("X-Slicecast-Labels")))) {
    table[value] = segmentIndex(name);
  }
  const label = new Uint8Array(await answer.arrayBuffer());
  const { voxelManager } = labelmap();
  const voxels = Uint8Array.from(voxelManager.getCompleteScalarDataArray());
  label.forEach((value, place) => { if (voxels[place] === 0) voxels[place] = table[value]; });
  voxelManager.setCompleteScalarDataArray(voxels);
  const { eventTarget, triggerEvent } = window.cornerstone;
  triggerEvent(eventTarget, window.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED, { segmentationId: PANEL });
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
    show(series).catch((error) => console.error("The label cannot be shown:", error));
  } else if (!shown.has(key)) {
    shown.add(key);
    connect();
  }
}

setInterval(() => {
  if (!window.services || !window.cornerstone?.cache) return;
  if (isLabelling()) labelling();
  else viewports().filter((one) => one.type === "stack").forEach(centre);
}, LOOK_MS);
