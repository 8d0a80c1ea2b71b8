"""Generated anatomy: tissue that fills the scene, organs painted over it, a body outline, no intensities yet.

In the manner of SynthMorph (Hoffmann et al., 2022) and SynthSeg (Billot et al., 2023): shapes are random, so a network
that solves them has learnt to follow boundaries, not to know anatomy.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast_lab.generated.fields import Field, Raster, random_field
from slicecast_lab.generated.shapes import Blob, Organ, random_blob, random_tube

AIR = 0  # Label outside the body
LOOKALIKE_SHARE = 0.35  # Share of scenes whose main organ has a neighbour of nearly the same grey value
MARGIN_SLICES = 3.0  # Fields cover this many slices beyond the clip


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A world of labels that can be looked at through any window."""

    tissue: Field  # C channels; their argmax is the label 1 .. C.
    roughness: Field  # one channel that all outlines share
    organs: tuple[Organ, ...]  # painted in this order
    body: Blob | None  # everything outside is air; None fills the frame
    label_count: int  # labels in use, air included
    main_label: int  # the organ that the clip was made for
    lookalike: int | None = None  # a neighbour of the main organ with nearly its grey value; None for none

    def tissue_labels(self, raster: Raster) -> NDArray[np.int16]:
        """Return (T, rows, columns) int16: what would be there without organs."""
        return (self.tissue.values(raster).argmax(axis=0) + 1).astype(np.int16)

    def labels(self, raster: Raster) -> NDArray[np.int16]:
        """Return (T, rows, columns) int16."""
        noise = self.roughness.values(raster)[0]
        out = self.tissue_labels(raster)
        for organ in self.organs:
            organ.paint(out, raster, noise)
        if self.body is not None:
            out[self.body.depth(raster, noise) >= 1] = AIR
        return out


def random_scene(rng: np.random.Generator, *, slices: int) -> Scene:
    """Draw a scene for a clip of `slices` slices that begins at z = 0."""
    z_range = (-MARGIN_SLICES, slices + MARGIN_SLICES)
    channels = int(rng.integers(3, 10))
    tissue = random_field(
        rng,
        channels,
        cells_xy=int(rng.integers(2, 9)),
        slices_per_cell=float(np.exp(rng.uniform(np.log(5), np.log(30)))),
        z_range=z_range,
    )
    roughness = random_field(
        rng, 1, cells_xy=int(rng.integers(8, 24)), slices_per_cell=rng.uniform(2, 10), z_range=z_range
    )
    organs, lookalike = _random_organs(rng, first_label=channels + 1, slices=slices)
    last = max(max(o.label, o.core_label or 0) for o in organs)
    main = organs[-1]
    return Scene(
        tissue=tissue,
        roughness=roughness,
        organs=organs,
        body=_random_body(rng),
        label_count=last + 1,
        main_label=main.label if main.core_label is None or rng.random() < 0.5 else main.core_label,
        lookalike=lookalike,
    )


def _random_body(rng: np.random.Generator) -> Blob | None:
    if rng.random() < 0.5:
        return None
    centre = (rng.normal(0, 0.1), rng.normal(0, 0.1))
    return random_blob(rng, radius=rng.uniform(0.7, 1.1), centre_xy=centre, centre_z=0, radius_z=200)


def _random_organs(rng: np.random.Generator, *, first_label: int, slices: int) -> tuple[tuple[Organ, ...], int | None]:
    """Return the other organs, then the main one, which nothing covers; and the label of its look-alike, if any."""
    organs: list[Organ] = []
    label = first_label
    for _ in range(int(rng.integers(1, 6))):
        organs.extend(reversed(_random_organ(rng, label=label, extent=_any_extent(rng, slices))))
        label = 1 + max(o.core_label or o.label for o in organs)
    main = _random_organ(rng, label=label + 1, extent=_main_extent(rng, slices))
    if rng.random() >= LOOKALIKE_SHARE:
        return (*organs, *reversed(main)), None
    return (*organs, _neighbour(rng, main[0].blobs[0], label), *reversed(main)), label


def _neighbour(rng: np.random.Generator, blob: Blob, label: int) -> Organ:
    """Draw an organ that touches a blob, or nearly, and moves along with it."""
    reach, heading = rng.uniform(1.0, 2.2), rng.uniform(0, 2 * np.pi)
    centre = (
        blob.centre_xy[0] + reach * blob.radii_xy[0] * np.cos(heading),
        blob.centre_xy[1] + reach * blob.radii_xy[1] * np.sin(heading),
    )
    radius, radius_z = min(blob.radii_xy) * rng.uniform(0.6, 1.6), min(blob.radius_z, 200) * rng.uniform(0.5, 2)
    centre_z = blob.centre_z + rng.uniform(-0.3, 0.3) * min(blob.radius_z, 20)
    other = random_blob(rng, radius=radius, centre_xy=centre, centre_z=centre_z, radius_z=radius_z)
    return Organ((replace(other, drift_xy=blob.drift_xy),), label)


def _any_extent(rng: np.random.Generator, slices: int) -> tuple[float, float]:
    """Return (centre, radius) in slices of an organ that may begin or end anywhere."""
    return rng.uniform(-slices, 2 * slices), float(np.exp(rng.uniform(np.log(2), np.log(60))))


def _main_extent(rng: np.random.Generator, slices: int) -> tuple[float, float]:
    """Return (centre, radius) of an organ present at z = 0; most of them end within the clip."""
    radius = float(np.exp(rng.uniform(np.log(2.5), np.log(40))))
    if rng.random() < 0.85:
        end = rng.uniform(0.8, 0.8 * slices)
        return end - radius, radius
    return rng.uniform(-0.7, 0.7) * radius, radius


def _random_organ(rng: np.random.Generator, *, label: int, extent: tuple[float, float]) -> list[Organ]:
    """Draw an organ of a random kind, the one that may cover the others first (a lesion before its host)."""
    centre_z, radius_z = extent
    centre = (rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6))
    radius = float(np.exp(rng.uniform(np.log(0.12), np.log(0.6))))
    blob = random_blob(rng, radius=radius, centre_xy=centre, centre_z=centre_z, radius_z=radius_z)
    kind = rng.choice(["blob", "lobes", "tube", "shell", "pair", "lesion"], p=[0.3, 0.2, 0.12, 0.16, 0.1, 0.12])
    if kind == "lobes":
        return [Organ((blob, *_lobes(rng, blob)), label)]
    if kind == "tube":
        return [Organ(random_tube(rng, radius=min(radius, 0.3), centre_xy=centre), label)]
    if kind == "shell":
        return [Organ((blob,), label, core_label=label + 1, core=rng.uniform(0.5, 0.85))]
    if kind == "pair":
        twin = blob.mirrored(centre[0] + radius * rng.uniform(1.1, 2.5) * rng.choice([-1, 1]))
        return [Organ((blob,), label), Organ((twin,), label + 1)]
    if kind == "lesion":
        return [Organ((blob,), label), Organ((_host(rng, blob),), label + 1)]
    return [Organ((blob,), label)]


def _lobes(rng: np.random.Generator, blob: Blob) -> list[Blob]:
    """Return one or two further blobs that overlap the first."""
    out = []
    for _ in range(int(rng.integers(1, 3))):
        reach, heading = rng.uniform(0.6, 1.1), rng.uniform(0, 2 * np.pi)
        radius = blob.radii_xy[0] * rng.uniform(0.4, 0.9)
        x = blob.centre_xy[0] + reach * blob.radii_xy[0] * np.cos(heading)
        y = blob.centre_xy[1] + reach * blob.radii_xy[1] * np.sin(heading)
        z = blob.centre_z + rng.uniform(-0.3, 0.3) * min(blob.radius_z, 20)
        out.append(random_blob(rng, radius=radius, centre_xy=(x, y), centre_z=z, radius_z=blob.radius_z))
    return out


def _host(rng: np.random.Generator, lesion: Blob) -> Blob:
    """Return a larger blob around a lesion."""
    radius = max(lesion.radii_xy) * rng.uniform(1.4, 3)
    offset = 0.5 * max(lesion.radii_xy)
    x, y = (c + rng.uniform(-offset, offset) for c in lesion.centre_xy)
    return random_blob(rng, radius=radius, centre_xy=(x, y), centre_z=lesion.centre_z, radius_z=3 * lesion.radius_z)
