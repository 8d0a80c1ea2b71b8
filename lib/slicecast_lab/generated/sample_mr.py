"""A generated head as a FLAIR-like MR shows it: grey folds, dark fluid, a bright lesion, coil shading, Rician noise."""

from dataclasses import dataclass

import numpy as np

from slicecast.volume import Geometry
from slicecast_lab.generated.canvas import Canvas, blend, inside_both

LABELS = {"brain_lesion": 7, "ventricles": 8, "cerebellum": 9, "brainstem": 10}
"""The label numbers of the truth; they go on where those of the CT end."""

FLUID, WHITE, GREY, SKULL, SCALP, MUSCLE = 0.12, 0.47, 0.62, 0.05, 0.80, 0.34
"""Brightness of the tissues; the air around is 0."""

XYZ = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Head:
    """One patient's head."""

    half_width_mm: float = 77.0  # of the skin's outline
    half_length_mm: float = 96.0  # of the skin's outline
    lesion_mm: XYZ = (-34.0, 18.0, 34.0)  # centre of the lesion
    lesion_radius_mm: float = 14.0  # its size
    ventricle_scale: float = 1.0  # 1 is normal, more is wider
    shading: float = 0.14  # how unevenly the coils receive (0.15 = 15 %)
    noise: float = 0.035  # deviation of the noise, as a share of white matter's brightness


def head(geometry: Geometry, patient: Head, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate a head on a straight LPS grid; z = 0 is the level of the deep grey nuclei.

    Returns:
        float32 brightness (white matter near 0.5, noise included) and uint8 labels, both [k, j, i].
    """
    canvas = Canvas(geometry, background=0.0, seed=seed)
    canvas.warp(2.5, scale_mm=80.0)
    skin = _skin_and_skull(canvas, patient)
    brain = _cerebrum(canvas, patient)
    _deep_grey(canvas)
    _ventricles(canvas, patient.ventricle_scale)
    _hindbrain(canvas)
    _face(canvas, skin)
    _lesion(canvas, patient, brain)
    return _scanned(canvas, patient), canvas.truth()


def _skin_and_skull(canvas: Canvas, patient: Head) -> np.ndarray:
    width, length = patient.half_width_mm, patient.half_length_mm
    skin = canvas.ellipsoid((0, 0, 2), (width, length, 96), power=2.25)
    neck = canvas.ellipsoid((0, 22, -70), (62, 66, 70), power=2.5)
    outline = blend(skin, neck, round_mm=12)
    canvas.paint(outline, SCALP + 0.05 * canvas.noise(5.0))
    canvas.paint(outline + 4.5 + 1.2 * canvas.noise(30.0), MUSCLE + 0.04 * canvas.noise(6.0))
    skull = canvas.ellipsoid((0, 0, 4), (width - 6, length - 7, 89), power=2.25) + 0.8 * canvas.noise(25.0)
    canvas.paint(skull, SKULL)
    diploe = np.abs(skull + 3.2) - 1.1  # marrow between the two tables of bone
    canvas.paint(diploe, 0.42 + 0.1 * canvas.noise(7.0))
    canvas.paint(skull + 6.5, FLUID)
    base = inside_both(skull + 3, canvas.z + 19 - 0.25 * canvas.y, canvas.y - 12)
    canvas.paint(base, MUSCLE + 0.12 * canvas.noise(9.0), edge_mm=3.0)
    canvas.paint(inside_both(base, 4 * (0.8 - canvas.noise(11.0))), SKULL)
    canvas.paint(inside_both(outline + 9, canvas.z + 62 - 0.4 * canvas.y), MUSCLE + 0.08 * canvas.noise(8.0))
    return outline


def _cerebrum(canvas: Canvas, patient: Head) -> np.ndarray:
    """Paint the folded cortex and the white matter; return the brain's outline."""
    radii = (patient.half_width_mm - 15, patient.half_length_mm - 16, 79)
    whole = canvas.ellipsoid((0, 0, 4), radii, power=2.25)
    above_base = 0.35 * canvas.y - 6 - canvas.z  # the front lies on the eye sockets, the back on the tent
    cerebrum = inside_both(whole, np.minimum(above_base, -14 - canvas.z + 0 * canvas.y))
    temporal = np.minimum(*(canvas.ellipsoid((side * 40, -6, -20), (21, 40, 22)) for side in (-1, 1)))
    brain = blend(cerebrum, inside_both(temporal, whole), round_mm=5) + 0.8 * canvas.noise(18.0)
    folds = _fold_distance(canvas, brain)
    midline = np.abs(canvas.x + 1.0 * canvas.noise(50.0)) - 0.9
    callosum = (np.hypot(canvas.y / 40, (canvas.z - 12) / 24) - 1) * 24
    fissure = inside_both(midline, -callosum)
    surface = np.minimum.reduce([-brain, folds, np.maximum(fissure, 0)])
    canvas.paint(brain, GREY + 0.03 * canvas.noise(4.0))
    canvas.paint(3.6 - surface, WHITE + 0.025 * canvas.noise(9.0), edge_mm=1.6)
    canvas.paint(inside_both(folds - 0.8, brain + 0.5), FLUID, edge_mm=1.0)
    canvas.paint(inside_both(fissure, brain), FLUID, edge_mm=1.0)
    return brain


def _fold_distance(canvas: Canvas, brain: np.ndarray) -> np.ndarray:
    """Measure how far each voxel is from the nearest sulcus, in mm; sulci reach about 18 mm deep."""
    field = canvas.noise((9.5, 9.5, 13.0))
    slope = np.sqrt(
        sum(
            np.gradient(field, spacing, axis=axis) ** 2
            for axis, spacing in zip((2, 1, 0), canvas.geometry.spacing_mm, strict=True)
        )
    )
    distance = np.abs(field) / np.maximum(slope, 0.03)
    too_deep = np.maximum(-brain - 13 - 4 * canvas.noise(20.0), 0)
    return np.minimum(distance + too_deep, 30).astype(np.float32)


def _deep_grey(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid((side * 11, 12, 6), (9, 15, 10), turn_deg=side * 18), GREY - 0.02)
        canvas.paint(canvas.ellipsoid((side * 26, -4, 4), (6.5, 19, 12), turn_deg=-side * 14), GREY - 0.03)
        canvas.paint(
            canvas.tube([(side * 11, -28, 10), (side * 16, -6, 24), (side * 19, 16, 25)], [7, 5, 3]), GREY - 0.01
        )


def _ventricles(canvas: Canvas, scale: float) -> None:
    parts = []
    for side in (-1, 1):
        body = [(side * 8, -38, 8), (side * 9, -22, 16), (side * 13, 6, 24), (side * 20, 32, 20), (side * 26, 46, 8)]
        parts.append(canvas.tube(body, [4 * scale, 6 * scale, 5.5 * scale, 7 * scale, 4 * scale]))
        horn = [(side * 20, 32, 20), (side * 30, 26, 0), (side * 33, 4, -12)]
        parts.append(canvas.tube(horn, [6 * scale, 4 * scale, 2.5 * scale]))
    parts.append(canvas.ellipsoid((0, 6, 2), (2.6 * scale, 14, 11)))
    lining = np.minimum.reduce(parts)
    canvas.paint(lining - 1.5, GREY + 0.06, edge_mm=2.0)  # the bright rim that FLAIR shows
    canvas.paint(lining, FLUID, label=LABELS["ventricles"])


def _hindbrain(canvas: Canvas) -> None:
    tent = canvas.z + 13 - 0.2 * np.abs(canvas.x)
    lobes = np.minimum(*(canvas.ellipsoid((side * 21, 46, -38), (31, 28, 26)) for side in (-1, 1)))
    cerebellum = inside_both(lobes + 0.8 * canvas.noise(14.0), tent)
    canvas.paint(inside_both(cerebellum - 3, tent - 3), FLUID)
    leaves = np.sin(2 * np.pi * np.hypot(canvas.z + 10, canvas.y - 18) / 5.5 + 0.9 * canvas.noise(18.0))
    canvas.paint(cerebellum, GREY - 0.08 + 0.09 * leaves + 0.02 * canvas.noise(4.0), label=LABELS["cerebellum"])
    canvas.paint(cerebellum + 12, WHITE + 0.02 * canvas.noise(6.0), edge_mm=4.0)
    stem = canvas.tube([(0, 10, -8), (0, 12, -26), (0, 22, -50), (0, 32, -90)], [14, 15, 10, 7])
    canvas.paint(stem - 2.5, FLUID)
    canvas.paint(stem, WHITE + 0.02 + 0.02 * canvas.noise(6.0), label=LABELS["brainstem"])
    fourth = canvas.ellipsoid((0, 30, -40), (6, 4, 12))
    canvas.paint(fourth, FLUID)
    canvas.labels[fourth < 0] = 0


def _face(canvas: Canvas, skin: np.ndarray) -> None:
    for side in (-1, 1):
        socket = inside_both(canvas.ellipsoid((side * 31, -72, -32), (19, 26, 18)), skin + 4)
        canvas.paint(socket, SCALP - 0.2)
        canvas.paint(canvas.ellipsoid((side * 31, -78, -32), (11.5, 11.5, 11.5)), FLUID + 0.03)
        sinus = inside_both(canvas.ellipsoid((side * 24, -62, -66), (16, 18, 16)), skin + 8)
        canvas.paint(sinus, 0.0)
    airway = inside_both(canvas.ellipsoid((0, -56, -62), (7, 26, 20)), skin + 6)
    canvas.paint(airway, 0.02)
    canvas.paint(canvas.ellipsoid((0, -84, 8), (15, 7, 13)), 0.02)


def _lesion(canvas: Canvas, patient: Head, brain: np.ndarray) -> None:
    radius = patient.lesion_radius_mm
    lump = canvas.ellipsoid(patient.lesion_mm, (radius, radius * 1.2, radius * 0.9), turn_deg=25)
    lump = inside_both(lump + 0.16 * radius * canvas.noise(radius * 0.9), brain + 1.5)
    canvas.paint(lump - 2.5, WHITE + 0.14, edge_mm=5.0)
    canvas.paint(lump, 0.92 + 0.05 * canvas.noise(5.0), edge_mm=2.0, label=LABELS["brain_lesion"])
    core = inside_both(lump + 0.45 * radius, 4 * (0.2 - canvas.noise(radius * 0.6)))
    canvas.paint(core, 0.45, edge_mm=3.0)


def _scanned(canvas: Canvas, patient: Head) -> np.ndarray:
    """Shade by the coils and add the noise of a magnitude image."""
    shading = np.exp(patient.shading * canvas.noise(110.0))
    signal = np.clip(canvas.numbers, 0, None) * shading
    across, along, up = canvas.geometry.spacing_mm
    blur = (0.9 * across, 0.9 * along, 0.9 * up)
    real, imaginary = canvas.noise(blur), canvas.noise(blur)
    deviation = patient.noise * WHITE
    return np.hypot(signal + deviation * real, deviation * imaginary).astype(np.float32)
