"""Labels to grey values: contrasts, textures, partial volume, bias, noise, artefacts, windows.

Values come out in [0, 1] over the whole clip, as `volume.intensity` hands real scans to the models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast_lab.generated.fields import Raster, random_field
from slicecast_lab.generated.scenes import AIR, Scene

Array = NDArray[np.float32]

MIN_CONTRAST = 0.07  # Most prompted objects differ from the tissue by at least this much of the full range

FAINT_SHARE, FAINTEST, APART_SHARE = 0.7, 0.25, 0.2
"""Share of looks with low contrast, the lowest of them, and the share of their labels that keep their grey value.
Soft tissue differs little beside air, bone and fluid: at outlines by 0.08 to 0.13 of the range in real scans."""


@dataclass(frozen=True, slots=True)
class Look:
    """How one clip's scanner sees labels."""

    means: Array  # grey value of each label
    texture: Array  # amplitude of each label's texture
    texture_cells: int  # texture cells across the scene
    ghost: Array  # share of what lies beneath that shows through each label
    blur_px: float  # in-plane blur in native pixels
    thickness: float  # slices to a second position averaged in (partial volume through the slice); 0 for none


def random_look(rng: np.random.Generator, scene: Scene) -> Look:
    """Draw a look; most of the time the main organ differs from the tissue."""
    levels = rng.uniform(0, 1, int(rng.integers(3, 7)))
    means = _means(rng, levels, scene)
    spread = _spread(rng)
    means = _drawn_together(rng, means, spread)
    if scene.lookalike is not None:
        means[scene.lookalike] = means[scene.main_label] + spread * rng.normal(0, 0.08)
    means[AIR] = rng.uniform(0, 0.05) if rng.random() < 0.8 else rng.uniform(0, 1)
    count = scene.label_count
    strong = rng.random(count) < 0.25
    texture = rng.uniform(0, np.where(strong, 0.3, 0.12)) * (rng.random(count) < 0.7)
    texture *= np.sqrt(spread)
    ghost = rng.uniform(0, 0.6, count) * (rng.random(count) < 0.4)
    ghost[AIR] = 0
    texture[AIR] *= 0.2
    thickness = rng.uniform(-0.5, 0.5) if rng.random() < 0.3 else 0.0
    return Look(
        means=means.astype(np.float32),
        texture=texture.astype(np.float32),
        texture_cells=int(np.exp(rng.uniform(np.log(5), np.log(48)))),
        ghost=ghost.astype(np.float32),
        blur_px=float(rng.choice([0, rng.uniform(0.3, 1.2)], p=[0.3, 0.7])),
        thickness=thickness,
    )


def _means(rng: np.random.Generator, levels: NDArray[np.float64], scene: Scene) -> NDArray[np.float64]:
    """Return a grey value for each label: a few levels that many labels share, give or take."""
    tissue = slice(1, 1 + scene.tissue.knots.shape[0])
    for _ in range(6):
        means = rng.choice(levels, scene.label_count) + rng.normal(0, 0.05, scene.label_count)
        if np.abs(means[scene.main_label] - means[tissue]).min() > MIN_CONTRAST or rng.random() < 0.05:
            break
    return means


def _spread(rng: np.random.Generator) -> float:
    """Return the share of the full range that most labels of a look have between them."""
    return float(np.exp(rng.uniform(np.log(FAINTEST), 0))) if rng.random() < FAINT_SHARE else 1.0


def _drawn_together(rng: np.random.Generator, means: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Return grey values nearer to a common one, but for a few that keep the full range from being stretched."""
    apart = rng.random(len(means)) < APART_SHARE
    centre = rng.uniform(0.3, 0.7)
    return np.where(apart, means, centre + spread * (means - centre))


def render(rng: np.random.Generator, scene: Scene, raster: Raster, look: Look, *, labels: NDArray[np.int16]) -> Array:
    """Return (T, rows, columns) float32 grey values, not yet degraded; `labels` are the scene's on the raster."""
    texture = random_field(
        rng,
        1,
        cells_xy=look.texture_cells,
        slices_per_cell=rng.uniform(1, 6),
        z_range=(float(raster.z[0]) - 1, float(raster.z[-1]) + 1),
    ).values(raster)[0]
    layers = [labels]
    if look.thickness:
        layers.append(scene.labels(Raster(raster.x, raster.y, raster.z + np.float32(look.thickness))))
    beneath = look.means[scene.tissue_labels(raster)]
    image = np.mean([_greys(look, layer, beneath) + look.texture[layer] * texture for layer in layers], axis=0)
    return _blurred(image.astype(np.float32), look.blur_px)


def _greys(look: Look, layer: NDArray[np.int16], beneath: Array) -> Array:
    """Return each label's grey value, with a share of the tissue's: real organs are not of one grey."""
    ghost = look.ghost[layer]
    return (1 - ghost) * look.means[layer] + ghost * beneath


def _blurred(image: Array, sigma_px: float) -> Array:
    return ndimage.gaussian_filter(image, (0, sigma_px, sigma_px), truncate=2.5) if sigma_px else image


def degrade(rng: np.random.Generator, image: Array) -> Array:
    """Add what scanners add to (T, rows, columns) and window the result to [0, 1]."""
    image = _bias(rng, image)
    if rng.random() < 0.3:
        image = image + rng.normal(0, 0.02, (len(image), 1, 1)).astype(np.float32)
    if rng.random() < 0.08:
        image = _streaks(rng, image)
    if rng.random() < 0.08:
        image = image + rng.uniform(0.03, 0.15) * np.roll(image, int(rng.integers(5, 40)), axis=int(rng.integers(1, 3)))
    image = _noise(rng, image)
    return _window(rng, image)


def _bias(rng: np.random.Generator, image: Array) -> Array:
    amplitude = rng.uniform(0, 0.25) * (rng.random() < 0.6)
    if not amplitude:
        return image
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape[1:]), indexing="ij")
    a, b, c, d = rng.normal(0, amplitude, 4)
    return image * np.exp(a * x + b * y + c * x * y + d * (x * x - y * y)).astype(np.float32)


def _noise(rng: np.random.Generator, image: Array) -> Array:
    sigma = np.float32(10 ** rng.uniform(-2.7, -1.0))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.3:
        noise = 2 * _blurred(noise, rng.uniform(0.5, 1.2))
    if rng.random() < 0.3:  # Rician, as in magnitude MR images
        return np.hypot(image + sigma * noise, sigma * rng.standard_normal(image.shape, dtype=np.float32))
    return image + sigma * noise


def _streaks(rng: np.random.Generator, image: Array) -> Array:
    """Add dark and bright rays around a point, as beside metal in CT."""
    rows, columns = image.shape[1:]
    y = (np.arange(rows) - rng.uniform(0, rows))[:, None]
    x = (np.arange(columns) - rng.uniform(0, columns))[None]
    rays = np.sin(rng.integers(4, 14) * np.arctan2(y, x) + rng.uniform(0, 6)) * np.exp(-np.hypot(x, y) / (0.4 * rows))
    return image + (rng.uniform(0.05, 0.2) * rays).astype(np.float32)


def _window(rng: np.random.Generator, image: Array) -> Array:
    """Window to a fixed range, as a crop rarely shows all of its scan, or by percentiles; dim some, bend by gamma."""
    if rng.random() < 0.6:
        low, high = rng.uniform(-0.1, 0.1), rng.uniform(0.9, 1.2)
    else:
        low, high = np.quantile(image[:, ::4, ::4], [rng.uniform(0, 0.05), rng.uniform(0.93, 1.0)])
    scaled = np.clip((image - low) / max(high - low, 1e-3), 0, 1)
    if rng.random() < 0.15:
        scaled = scaled * rng.uniform(0.5, 1.0)
    return (scaled ** np.exp(rng.normal(0, 0.25))).astype(np.float32)
