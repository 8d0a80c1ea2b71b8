"""A generated upper abdomen as a CT shows it: air, fat, muscle, bone and organs in Hounsfield units."""

from dataclasses import dataclass

import numpy as np

from slicecast.volume import Geometry
from slicecast_lab.generated.canvas import Canvas, blend, inside_both, without

LABELS = {"liver": 1, "spleen": 2, "kidney_right": 3, "kidney_left": 4, "aorta": 5, "liver_lesion": 6}
"""The label numbers of the truth."""

AIR, FAT, MUSCLE, WATER = -1000.0, -105.0, 58.0, 8.0


@dataclass(frozen=True, slots=True)
class Torso:
    """One patient's build."""

    half_width_mm: float = 152.0  # of the body's outline
    half_depth_mm: float = 112.0  # of the body's outline
    fat_mm: float = 15.0  # thickness of the fat under the skin
    dome_mm: float = 158.0  # height of the right diaphragm
    lesion: bool = True  # whether the liver has a dark lesion
    noise_hu: float = 11.0  # deviation of the image noise


def abdomen(geometry: Geometry, torso: Torso, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate a CT of the upper abdomen on a straight LPS grid whose z runs from about 0 to 170 mm.

    Returns:
        int16 HU and uint8 labels, both [k, j, i].
    """
    canvas = Canvas(geometry, background=AIR, seed=seed)
    canvas.warp(4.0, scale_mm=110.0)
    cavity = _trunk(canvas, torso)
    diaphragm = _diaphragm(canvas, torso, cavity)
    _bowel(canvas, cavity, diaphragm)
    _ribs(canvas, cavity)
    _spine(canvas)
    _vessels(canvas)
    _kidneys(canvas, cavity)
    stomach = _stomach(canvas, cavity, diaphragm)
    _spleen(canvas, cavity, diaphragm, stomach)
    _liver(canvas, torso, cavity, diaphragm)
    _lungs(canvas, cavity, diaphragm)
    return _scanned(canvas, torso), canvas.truth()


def _trunk(canvas: Canvas, torso: Torso) -> np.ndarray:
    """Paint table, skin, fat and muscle; return the cavity's depth."""
    waist = 1 - 0.05 * ((canvas.z - 110) / 90) ** 2
    width, depth = torso.half_width_mm * waist, torso.half_depth_mm * waist
    reach = (np.abs(canvas.x / width) ** 2.35 + np.abs(canvas.y / depth) ** 2.35) ** (1 / 2.35)
    body = (reach - 1) * 0.9 * torso.half_depth_mm + 2.5 * canvas.noise(90.0)
    table = np.abs(canvas.y - torso.half_depth_mm - 12 + (canvas.x / 60) ** 2) - 3
    canvas.paint(np.where(np.abs(canvas.x) < 190, table, 9), -350)
    canvas.paint(body, 20)
    canvas.paint(body + 2.5, FAT + 7 * canvas.noise(7.0))
    thin_back = 0.55 + 0.45 * np.clip(0.6 - canvas.y / torso.half_depth_mm, 0, 1)
    wall = body + 2.5 + torso.fat_mm * thin_back + 2.0 * canvas.noise(40.0)
    canvas.paint(wall, MUSCLE + 6 * canvas.noise(5.0))
    planes = np.abs(wall + 8) - 0.9  # thin fat between the layers of the wall
    canvas.paint(np.where(np.abs(canvas.y) < 55, planes, 9), -30)
    hollow = canvas.ellipsoid((0, -4, 110), (torso.half_width_mm - 33, torso.half_depth_mm - 30, 900), power=2.3)
    cavity = inside_both(wall + 13, hollow) + 1.5 * canvas.noise(25.0)
    canvas.paint(cavity, FAT + 8 + 9 * canvas.noise(6.0))
    return cavity


def _diaphragm(canvas: Canvas, torso: Torso, cavity: np.ndarray) -> np.ndarray:
    """Shape what lies below the two domes of the diaphragm; depth in mm."""
    right = torso.dome_mm - 70 * (((canvas.x + 62) / 82) ** 2 + ((canvas.y + 5) / 92) ** 2)
    left = torso.dome_mm - 12 - 70 * (((canvas.x - 66) / 76) ** 2 + ((canvas.y - 2) / 92) ** 2)
    middle = torso.dome_mm - 20 - 35 * ((canvas.y + 20) / 90) ** 2 - 60 * (canvas.x / 80) ** 2
    height = np.maximum.reduce(np.broadcast_arrays(right, left, middle))
    return (canvas.z - height + 2.0 * canvas.noise(35.0) + 0 * cavity) * 0.7


def _bowel(canvas: Canvas, cavity: np.ndarray, diaphragm: np.ndarray) -> None:
    region = inside_both(cavity + 5, diaphragm + 5, canvas.y - 18, canvas.z - 105 - 0.25 * canvas.x)
    loops = inside_both(region, 9 * (0.15 - canvas.noise((20, 20, 30))))
    canvas.paint(loops, 55)
    canvas.paint(loops + 3.5, 22 + 14 * canvas.noise(8.0))
    canvas.paint(inside_both(loops + 5, 6 * (0.9 - canvas.noise((22, 12, 25)))), -820)
    for side, top in ((-1.0, 70.0), (1.0, 125.0)):
        x = side * (103 + 5 * np.sin(canvas.z / 18))
        colon = inside_both(canvas.column((x, 8.0), (19, 18)) + 2 * canvas.noise(16.0), canvas.z - top, cavity + 2)
        canvas.paint(colon, 50)
        canvas.paint(colon + 3.5, 10 + 35 * canvas.noise(7.0))
        canvas.paint(inside_both(colon + 4.5, 5 * (0.5 - canvas.noise(11.0))), -780)


def _ribs(canvas: Canvas, cavity: np.ndarray) -> None:
    level = canvas.z - 0.55 * canvas.y - 0.12 * np.abs(canvas.x)
    wrapped = np.mod(level, 27.0) - 13.5
    bone = (np.hypot((cavity - 5.5) / 4.2, wrapped * 0.85 / 6.5) - 1) * 4.2
    bone = inside_both(bone, -(canvas.y + 74), 32 - np.abs(canvas.x), 25 - level)
    canvas.paint(bone, 560, edge_mm=1.6)
    canvas.paint(bone + 2.0, 190 + 25 * canvas.noise(4.0))


def _spine(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.paint(
            canvas.column((side * 31.0, 84.0), (27, 17)) + 1.5 * canvas.noise(15.0), MUSCLE + 8 * canvas.noise(4.0)
        )
        psoas = canvas.column((side * (31 + (90 - canvas.z) * 0.08), 53.0), (14, 17))
        canvas.paint(inside_both(psoas, (canvas.z - 95) * 0.4), MUSCLE + 6 * canvas.noise(4.0))
        process = canvas.ellipsoid((side * 27.0, 75, 0), (19, 4.5, 900), turn_deg=side * 14)
        canvas.paint(inside_both(process, np.abs(np.mod(canvas.z, 34) - 17) - 6), 330)
    arch = without(canvas.column((0, 76), (17, 15)), canvas.column((0, 75), (10, 9)))
    canvas.paint(inside_both(arch, np.abs(np.mod(canvas.z, 34) - 17) - 11), 480)
    canvas.paint(canvas.column((0, 75), (9.5, 8.5)), 28)
    spinous = inside_both(np.abs(canvas.x) - 3.2, np.abs(canvas.y - 95) - 11, np.abs(np.mod(canvas.z, 34) - 20) - 10)
    canvas.paint(spinous, 420)
    body = canvas.ellipsoid((0, 51, 0), (22, 16.5, 900), power=2.5) + 1.3 * np.abs(np.mod(canvas.z, 34) - 17) / 17
    canvas.paint(body, 520, edge_mm=1.6)
    canvas.paint(body + 2.2, 205 + 38 * canvas.noise(3.5))
    disc = inside_both(body - 1, 4 - np.abs(np.mod(canvas.z, 34) - 17) + 9)
    canvas.paint(disc, 85)


def _vessels(canvas: Canvas) -> None:
    sway = 3 * np.sin(canvas.z / 45)
    canvas.paint(canvas.column((11 + sway, 22.0), (10.5, 10.5)), 178, label=LABELS["aorta"])
    canvas.paint(canvas.column((-17 - 0.5 * sway, 22.0), (12, 9)), 138)
    canvas.paint(canvas.tube([(11, 14, 78), (10, -2, 72), (8, -12, 40), (6, -16, 0)], [4, 4, 3.5, 3]), 165)
    pancreas = canvas.tube([(-32, -8, 62), (-5, -6, 74), (30, 4, 84), (62, 26, 96)], [12, 9, 8, 7])
    canvas.paint(pancreas + 2.5 * canvas.noise(9.0), 88 + 14 * canvas.noise(4.0))


def _kidneys(canvas: Canvas, cavity: np.ndarray) -> None:
    for side, height, name in ((-1, 55.0, "kidney_right"), (1, 66.0, "kidney_left")):
        centre = (side * 61.0, 42.0, height)
        lean = side * 0.12 * (height - canvas.z)  # the upper pole lies nearer to the spine
        shifted = canvas.x - lean
        reach = np.sqrt(
            ((shifted - centre[0]) / 27) ** 2 + ((canvas.y - 42) / 23) ** 2 + ((canvas.z - height) / 52) ** 2
        )
        whole = (reach - 1) * 23 + 0.8 * canvas.noise(14.0)
        hollow = (np.hypot((shifted - centre[0] + side * 17) / 16, (canvas.y - 36) / 9) - 1) * 9
        sinus = inside_both(hollow + 1.5 * canvas.noise(9.0), np.abs(canvas.z - height) - 24)
        kidney = inside_both(without(whole, sinus), cavity + 1)
        canvas.paint(kidney, 172 + 8 * canvas.noise(4.0), label=LABELS[name])
        pyramids = inside_both(kidney + 6.5, 5 * (0.1 - canvas.noise(11.0)))
        canvas.paint(pyramids, 132)
        canvas.paint(inside_both(sinus + 4, whole), 15)


def _stomach(canvas: Canvas, cavity: np.ndarray, diaphragm: np.ndarray) -> np.ndarray:
    fundus = canvas.ellipsoid((52, -16, 120), (38, 38, 38), turn_deg=-20)
    antrum = canvas.tube([(52, -32, 100), (22, -52, 78), (-14, -44, 74)], [28, 20, 13])
    stomach = inside_both(blend(fundus, antrum, round_mm=18), cavity + 3, diaphragm + 3)
    canvas.paint(stomach, 72)
    canvas.paint(stomach + 4, 24 + 10 * canvas.noise(9.0))
    canvas.paint(inside_both(stomach + 5, canvas.y + 38), -930)
    return stomach


def _spleen(canvas: Canvas, cavity: np.ndarray, diaphragm: np.ndarray, stomach: np.ndarray) -> None:
    lump = canvas.ellipsoid((90, 42, 106), (42, 56, 54), turn_deg=-24) + 1.5 * canvas.noise(25.0)
    kidney_bed = canvas.ellipsoid((58, 42, 66), (30, 26, 55))
    spleen = without(inside_both(lump, cavity + 2.5, diaphragm + 2.5), stomach - 3, kidney_bed)
    canvas.paint(spleen, 122 + 5 * canvas.noise(5.0), label=LABELS["spleen"])


def _liver(canvas: Canvas, torso: Torso, cavity: np.ndarray, diaphragm: np.ndarray) -> None:
    right = canvas.ellipsoid((-76, 0, 92), (74, 78, 74), power=2.3)
    left = canvas.ellipsoid((2, -44, 116), (66, 34, 34), turn_deg=8)
    lobes = blend(right, left, round_mm=20) + 2 * canvas.noise(30.0)
    kidney_bed = canvas.ellipsoid((-58, 44, 52), (31, 29, 56))
    porta = canvas.ellipsoid((-20, 10, 70), (24, 22, 26))
    gallbladder = canvas.ellipsoid((-50, -38, 66), (14, 22, 26), turn_deg=-25)
    liver = without(inside_both(lobes, cavity + 2.5, diaphragm + 2.5), kidney_bed, porta, gallbladder - 2)
    liver = without(liver, canvas.column((-17.0, 22.0), (14, 11)))
    canvas.paint(liver, 112 + 5 * canvas.noise(6.0), label=LABELS["liver"])
    portal = canvas.branches((-28, 4, 90), canvas.scatter(9, (-70, -2, 98), (58, 55, 48)), radius=5.5)
    hepatic = canvas.branches((-18, 20, 140), canvas.scatter(7, (-64, -10, 100), (54, 52, 40)), radius=4.5)
    canvas.paint(inside_both(np.minimum(portal, hepatic), liver + 4), 158, edge_mm=1.6)
    canvas.paint(inside_both(gallbladder, cavity + 3), WATER)
    if torso.lesion:
        lump = canvas.ellipsoid((-88, -12, 92), (17, 15, 17)) + 2.2 * canvas.noise(11.0)
        canvas.paint(
            inside_both(lump, liver + 2), 58 + 7 * canvas.noise(5.0), edge_mm=2.5, label=LABELS["liver_lesion"]
        )


def _lungs(canvas: Canvas, cavity: np.ndarray, diaphragm: np.ndarray) -> None:
    heart = canvas.ellipsoid((22, -38, 176), (58, 44, 34), turn_deg=20)
    canvas.paint(inside_both(heart, cavity + 3, -diaphragm), 130)
    mediastinum = canvas.ellipsoid((4, 12, 170), (30, 64, 200))
    lungs = without(inside_both(cavity + 2, 3 - diaphragm), mediastinum, heart - 4)
    canvas.paint(lungs, -860 + 22 * canvas.noise(9.0), edge_mm=1.6)
    vessels = np.abs(canvas.noise((9, 9, 14))) + np.abs(canvas.noise((9, 9, 14)))
    canvas.paint(inside_both(lungs + 5, 9 * (vessels - 0.22)), -180, edge_mm=2.0)


def _scanned(canvas: Canvas, torso: Torso) -> np.ndarray:
    """Add the scanner's noise: finely correlated in the plane, and a little streaky."""
    fine, coarse = canvas.noise((1.6 * canvas.geometry.spacing_mm[0],) * 2 + (0.1,)), canvas.noise((9, 9, 0.1))
    streaks = canvas.noise((70, 2.5, 0.1))
    noise = torso.noise_hu * (0.9 * fine + 0.25 * coarse + 0.2 * streaks)
    return np.clip((canvas.numbers + noise).round(), -1024, 3071).astype(np.int16)
