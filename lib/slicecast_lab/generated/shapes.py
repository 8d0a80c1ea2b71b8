"""Organs as formulas: blobs, lobes, tubes, shells and pairs that begin and end along z.

Every shape answers one question, `depth(x, y, z)`: below 1 inside, above 1 outside, growing outwards.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast_lab.generated.fields import Raster

Array = NDArray[np.float32]

PACE = (-1.8, -0.4)
"""Range of the decimal logarithm of a blob's drift, in its radii a slice. Hippocampi move by 0.16 to 0.37 radii a
slice (10th to 90th percentile, in the pool); a network that meets slower ones only learns to stay where it is."""

OUTSIDE = np.float32(9.0)  # Depth where a shape does not reach


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A bumpy ellipse that moves, turns and shrinks from slice to slice."""

    centre_xy: tuple[float, float]  # world position at z = 0
    radii_xy: tuple[float, float]  # world units
    centre_z: float  # extent in slices
    radius_z: float  # extent in slices
    power_z: float = 2.0  # 2 gives round ends, more a longer even part
    taper: float = 0.5  # 0.5 gives round ends, less gives blunt ends
    drift_xy: tuple[float, float] = (0.0, 0.0)  # world units a slice
    sway_xy: tuple[float, float] = (0.0, 0.0)  # amplitude of a slow sideways wave
    sway_rate: float = 0.0  # radians a slice
    split_xy: tuple[float, float] = (0.0, 0.0)  # further drift a slice beyond `split_z`; makes branches
    split_z: float = 0.0  # where it starts
    angle: float = 0.0  # radians at z = 0, and a slice
    twist: float = 0.0  # radians at z = 0, and a slice
    bumps: tuple[float, ...] = ()  # amplitudes of the 2nd, 3rd ... harmonic of the outline.
    phases: tuple[float, ...] = ()  # their phases
    rough: float = 0.0  # how far the shared noise moves the outline

    def depth(self, raster: Raster, noise: Array) -> Array:
        """Return (T, rows, columns) float32; `noise` is (T, rows, columns) about unit variance."""
        out = np.full(raster.shape, OUTSIDE, dtype=np.float32)
        size = self._size(raster.z)
        here = size > 0
        if here.any():
            out[here] = self._depth_of_slices(raster, raster.z[here], size[here]) - self.rough * noise[here]
        return out

    def mirrored(self, offset_x: float) -> "Blob":
        """Return the blob reflected in the vertical line x = offset_x."""
        return replace(
            self,
            centre_xy=(2 * offset_x - self.centre_xy[0], self.centre_xy[1]),
            drift_xy=(-self.drift_xy[0], self.drift_xy[1]),
            angle=np.pi - self.angle,
            twist=-self.twist,
        )

    def _size(self, z: Array) -> Array:
        """Return the scale of each slice's outline; 0 beyond the ends."""
        ratio = np.abs((z - self.centre_z) / self.radius_z)
        return (np.clip(1 - ratio**self.power_z, 0, None) ** self.taper).astype(np.float32)

    def _centres(self, z: Array) -> tuple[Array, Array]:
        wave, split = np.sin(self.sway_rate * z), np.clip(z - self.split_z, 0, None)
        x, y = (
            c + d * z + a * wave + s * split
            for c, d, a, s in zip(self.centre_xy, self.drift_xy, self.sway_xy, self.split_xy, strict=True)
        )
        return x.astype(np.float32)[:, None, None], y.astype(np.float32)[:, None, None]

    def _depth_of_slices(self, raster: Raster, z: Array, size: Array) -> Array:
        x, y = raster.mesh()
        cx, cy = self._centres(z)
        angle = (self.angle + self.twist * z).astype(np.float32)[:, None, None]
        cos, sin = np.cos(angle), np.sin(angle)
        u = ((x - cx) * cos + (y - cy) * sin) / np.float32(self.radii_xy[0])
        v = ((y - cy) * cos - (x - cx) * sin) / np.float32(self.radii_xy[1])
        radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
        return radius / (size[:, None, None] * self._outline(u / radius, v / radius))

    def _outline(self, cos: Array, sin: Array) -> Array:
        """Return 1 plus the harmonics, from the direction's cosine and sine."""
        out = np.ones_like(cos)
        c, s = cos, sin
        for amplitude, phase in zip(self.bumps, self.phases, strict=True):
            c, s = c * cos - s * sin, s * cos + c * sin
            out += np.float32(amplitude * np.cos(phase)) * c + np.float32(amplitude * np.sin(phase)) * s
        return np.maximum(out, np.float32(0.2))


@dataclass(frozen=True, slots=True, eq=False)
class Organ:
    """One or more blobs painted as one label; a hollow one has a wall around another label."""

    blobs: tuple[Blob, ...]  # united
    label: int  # painted inside
    core_label: int | None = None  # painted inside the wall; None for solid organs
    core: float = 0.0  # relative size of the core

    def paint(self, labels: NDArray[np.int16], raster: Raster, noise: Array) -> None:
        """Write the organ into (T, rows, columns) labels."""
        depth = np.minimum.reduce([blob.depth(raster, noise) for blob in self.blobs])
        labels[depth < 1] = self.label
        if self.core_label is not None:
            labels[depth < self.core] = self.core_label


def random_blob(
    rng: np.random.Generator, *, radius: float, centre_xy: tuple[float, float], centre_z: float, radius_z: float
) -> Blob:
    """Draw a blob of about `radius` that may drift by a fraction of it a slice."""
    pace = radius * 10 ** rng.uniform(*PACE)
    heading = rng.uniform(0, 2 * np.pi)
    stretch = np.exp(rng.uniform(-0.45, 0.45))
    harmonics = int(rng.integers(0, 5))
    strength = rng.uniform(0, 0.35)
    bumps = tuple(float(strength * rng.standard_normal() / (k + 1.5)) for k in range(harmonics))
    return Blob(
        centre_xy=centre_xy,
        radii_xy=(radius * stretch, radius / stretch),
        centre_z=centre_z,
        radius_z=radius_z,
        power_z=float(np.exp(rng.uniform(np.log(1.6), np.log(6)))),
        taper=rng.uniform(0.12, 0.5),
        drift_xy=(pace * np.cos(heading), pace * np.sin(heading)),
        angle=rng.uniform(0, 2 * np.pi),
        twist=rng.normal(0, 0.03),
        bumps=bumps,
        phases=tuple(rng.uniform(0, 2 * np.pi, harmonics)),
        rough=rng.uniform(0, 0.12),
    )


def random_tube(rng: np.random.Generator, *, radius: float, centre_xy: tuple[float, float]) -> tuple[Blob, ...]:
    """Draw a vessel that runs through all slices, alone or branching in two."""
    stem = replace(
        random_blob(rng, radius=radius, centre_xy=centre_xy, centre_z=0, radius_z=1e4),
        bumps=(),
        phases=(),
        sway_xy=(radius * rng.normal(0, 0.7), radius * rng.normal(0, 0.7)),
        sway_rate=rng.uniform(0.02, 0.3),
    )
    if rng.random() < 0.6:
        return (stem,)
    pace = radius * rng.uniform(0.05, 0.25)
    heading = rng.uniform(0, 2 * np.pi)
    split = (pace * np.cos(heading), pace * np.sin(heading))
    split_z = rng.uniform(-4, 4)
    twin = replace(stem, split_xy=(-split[0], -split[1]), split_z=split_z)
    return replace(stem, split_xy=split, split_z=split_z), twin
