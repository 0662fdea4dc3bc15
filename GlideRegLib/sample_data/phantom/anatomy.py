"""The phantom's anatomy: where every organ is, as signed distances in scene coordinates.

Scene coordinates are LPS mm with the origin in the middle of the chest: x grows to the patient's
left, y to the back, z to the head. The chest is 320 x 256 x 320 mm whatever the image grid. A seed
changes proportions by a few mm and grows other trees, nodules and texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import FAR, Capsules, cylinder, ellipsoid, rows_of_axes
from .trees import Tree, grow_tree, scatter

#: Half the size of the chest along x, y, z in mm.
HALF_EXTENT = np.array([160.0, 128.0, 160.0])
#: -1 is the patient's right, 1 the left (the sign of x).
SIDES = (-1, 1)

_SQUARE = 2.4  # exponent of the chest's cross section: between an ellipse and a box


@dataclass(frozen=True)
class Nodule:
    """A small tumor in a lung: scene center (3,) and radii (3,) in mm, its HU."""

    center: np.ndarray
    radii: np.ndarray
    hu: float


class Anatomy:
    """One patient at inhale. Methods take points (N, 3) in scene mm and return distances (N,)."""

    def __init__(self, seed: int, vessel_targets: int) -> None:
        self.rng = rng = np.random.default_rng([seed, 1])

        def about(*values: float, spread: float = 3.0) -> np.ndarray:
            return np.array(values) + rng.uniform(-spread, spread, len(values))

        self.center_y = 4.0
        self.body_radii = about(147, 110)
        self.cavity_radii = about(119, 88)
        self.lung_top = float(about(138)[0])
        self.dome_top = {-1: float(about(-46, spread=5)[0]), 1: float(about(-58, spread=5)[0])}
        self.spine = np.array([0.0, 68.0])
        self.heart_center = about(20, -18, -14)
        self.heart_radii = about(58, 42, 45, spread=2)
        self.heart_axes = rows_of_axes((0.75, -0.50, -0.43), (0.5, 0.85, 0.0))
        self.liver_center = about(-48, -8, -98)
        self.liver_radii = about(88, 82, 78)
        self.hilum = {side: about(side * 37.0, 14, 30, spread=2) for side in SIDES}
        self.great_vessels = _great_vessels()
        self.bones = _bones(self)
        self._grow(vessel_targets)
        self.nodules = self._nodules()

    # --- walls --------------------------------------------------------------------------------

    def body(self, points: np.ndarray) -> np.ndarray:
        """Distance to the skin."""
        x, y = points[:, 0], points[:, 1]
        return cylinder(x, y, (0, self.center_y), self.body_radii, _SQUARE)

    def cavity(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance to the wall along which lungs and belly slide; it only depends on x and y.

        Inside the chest wall and outside a column around the spine; smooth, so that a motion that
        is built on it is smooth too. Broadcasts over x and y (mm, any shape).
        """
        wall = cylinder(x, y, (0, self.center_y), self.cavity_radii, _SQUARE)
        column = 33 - np.sqrt(x**2 + (y - self.spine[1] - 10) ** 2 + 1)
        return 0.5 * (wall + column + np.sqrt((wall - column) ** 2 + 36))

    def taper(self, z: np.ndarray) -> np.ndarray:
        """Width of the rib cage at height z, 1 at the base, narrower towards the neck."""
        return 1 - 0.40 * (np.clip(z - 35, 0, 135) / 115) ** 2

    def cage(self, points: np.ndarray) -> np.ndarray:
        """Distance to the inner surface of the rib cage."""
        scale = self.taper(points[:, 2])
        x, y = points[:, 0] / scale, (points[:, 1] - self.center_y) / scale
        return scale * cylinder(x, y, (0, 0), self.cavity_radii, _SQUARE)

    def above_diaphragm(self, points: np.ndarray) -> np.ndarray:
        """Height above the two domes of the diaphragm, mm; negative in the belly."""
        x, y, z = points.T
        height = [
            self.dome_top[side]
            - 25 * ((x - side * 56) / 60) ** 2
            - 30 * ((y + 8) / 72) ** 2
            - 14 * np.clip((y - 20) / 60, 0, None) ** 2
            for side in SIDES
        ]
        return z - np.maximum(*height)

    # --- organs -------------------------------------------------------------------------------

    def lung(self, points: np.ndarray, side: int) -> np.ndarray:
        """Distance to the surface of one lung; ``side`` is -1 (right) or 1 (left)."""
        x, y, z = points.T
        # In front of the heart the lungs nearly meet, behind it they leave room for vessels.
        medial = 8 + 20 * np.clip((y + 78) / 45, 0, 1) - np.clip(z - 60, 0, 60) / 8
        apex = z - self.lung_top + 16 * (((x - side * 48) / 40) ** 2 + ((y - 14) / 45) ** 2)
        column = 35 - np.hypot(x, y - self.spine[1] - 10)
        parts = [
            self.cage(points) + 4,
            2 - self.above_diaphragm(points),
            medial - side * x,
            0.5 * apex,
            column,
            4 - self.heart(points),
            3 - self.aorta(points),
        ]
        return np.maximum.reduce(parts).astype(np.float32)

    def lungs(self, points: np.ndarray) -> np.ndarray:
        """Distance to the nearer lung."""
        return np.minimum(self.lung(points, -1), self.lung(points, 1))

    def fissures(self, points: np.ndarray) -> np.ndarray:
        """Distance to the planes between the lobes (oblique on both sides, horizontal right)."""
        x, y, z = points.T
        oblique = np.abs(0.66 * (y - 20) + 0.75 * (z - 12) + 5 * np.sin(x / 25))
        horizontal = np.abs(z - 8 - 6 * np.sin(y / 30)) + FAR * ((x > 0) | (y > 8))
        return np.minimum(oblique, horizontal)

    def heart(self, points: np.ndarray) -> np.ndarray:
        """Distance to the heart; its long axis points left, forward and down."""
        return ellipsoid(points, self.heart_center, self.heart_radii, axes=self.heart_axes)

    def aorta(self, points: np.ndarray) -> np.ndarray:
        """Distance to the descending aorta."""
        return np.hypot(points[:, 0] - 23, points[:, 1] - 42) - 11.5 + FAR * (points[:, 2] > 62)

    def liver(self, points: np.ndarray) -> np.ndarray:
        """Distance to the liver, which fills the right dome and ends in an edge on the left."""
        whole = ellipsoid(points, self.liver_center, self.liver_radii, 2.3)
        below = 5 + self.above_diaphragm(points)
        edge = 0.55 * (points[:, 0] - 42) - 0.83 * (points[:, 2] + 112)
        return np.maximum.reduce([whole, below, self.cage(points) + 5, edge])

    def belly_organ(
        self, points: np.ndarray, center: tuple[float, float, float], radii: tuple
    ) -> np.ndarray:
        """Distance to an ellipsoidal organ that stays below the diaphragm and inside the ribs."""
        inside = np.maximum(5 + self.above_diaphragm(points), self.cage(points) + 5)
        return np.maximum(ellipsoid(points, center, radii), inside)

    # --- what grows ---------------------------------------------------------------------------

    def _grow(self, vessel_targets: int) -> None:
        """Airways, two vessel trees per lung, and the vessels of the liver."""
        carina = np.array([0.0, 21.0, 52.0])
        self.trachea = Capsules.along([(0, 2, 175), (0, 14, 100), carina], [8.5, 8.5, 8.0])
        airways, vessels, self.vessel_trees = [], [], []
        for side in SIDES:
            hilum = self.hilum[side]
            airways.append(Capsules.along([carina, hilum], [6.5, 5.8]))
            airways.append(self._lung_tree(side, hilum, 45, 16, 0.5, 1.2, 4.8).tubes)
            for offset in ((0, -7, 3), (0, -3, -12)):  # arteries, veins
                root = hilum + np.array(offset)
                tree = self._lung_tree(side, root, vessel_targets, 3, 0.35, 0.75, 6.5)
                self.vessel_trees.append(tree)
                vessels += [tree.tubes, Capsules.along([(side * 9, -8, 22), root], [7.5, 6.5])]
        self.airways = Capsules.joined(airways)
        self.vessels = Capsules.joined(vessels)

        def in_liver(points: np.ndarray) -> np.ndarray:
            return self.liver(points) < -9

        targets = scatter(self.rng, self.liver_center, self.liver_radii, in_liver, 120)
        self.liver_vessels = grow_tree((-22, 4, -100), targets, 0.4, 1.1, 6.0).tubes

    def _lung_tree(self, side: int, root: np.ndarray, count: int, depth: float, *shape) -> Tree:
        """A tree from the hilum to ``count`` places at least ``depth`` mm inside a lung."""
        targets = self._in_lung(side, count, depth)
        return grow_tree(root, targets, *shape)

    def _in_lung(self, side: int, count: int, depth: float) -> np.ndarray:
        center, radii = (side * 62, self.center_y, 22), (62, 92, 125)
        return scatter(
            self.rng, center, radii, lambda points: self.lung(points, side) < -depth, count
        )

    def _nodules(self) -> list[Nodule]:
        """Eight nodules, four in each lung, radius 2.5 to 7 mm."""
        nodules = []
        for side in SIDES:
            for center in self._in_lung(side, 40, 10)[:4]:
                radius = self.rng.uniform(2.5, 7.0)
                radii = radius * np.array([1.0, 0.9, 1.1])
                nodules.append(Nodule(center, radii, float(self.rng.uniform(-50, 60))))
        return nodules


def _great_vessels() -> Capsules:
    """Ascending aorta and arch, upper vena cava, pulmonary trunk, esophagus, in scene mm."""
    arch = [(-10, -18, 12), (-9, -16, 50), (0, -4, 70), (14, 18, 76), (22, 36, 68), (23, 42, 54)]
    cava = [(-30, -10, 10), (-29, -10, 100), (-20, -6, 130)]
    neck = [(4, 8, 78), (10, 4, 130), (14, 8, 160)]
    return Capsules.joined(
        [
            Capsules.along(arch, [14.5, 14, 13, 12.5, 12, 11.5]),
            Capsules.along(cava, [9, 9, 6]),
            Capsules.along(neck, [6, 5, 4]),
            Capsules.along([(12, -30, 8), (6, -14, 24)], [13, 11]),
        ]
    )


@dataclass(frozen=True)
class Bones:
    """Ribs, rib cartilage, clavicles and vertebral processes as tubes."""

    ribs: Capsules
    cartilage: Capsules
    clavicles: Capsules
    processes: Capsules


def _bones(anatomy: Anatomy) -> Bones:
    ribs, cartilage, processes = [], [], []
    sternum_y = anatomy.center_y - anatomy.cavity_radii[1]
    for number in range(11):
        back = 128.0 - 24 * number
        # From beside the spine round to the front; the lower ribs end early.
        front = -0.42 * np.pi if number < 7 else (-0.42 + 0.13 * (number - 6)) * np.pi
        angle = np.linspace(0.43 * np.pi, front, 22)
        drop = 30 * (1 - np.sin(angle)) / 2 * min(1.0, 0.6 + 0.1 * number) * 1.25
        z = back + 8 - drop
        for side in SIDES:
            scale = anatomy.taper(z)
            x = side * (anatomy.cavity_radii[0] * scale + 5.5) * np.cos(angle) ** 0.85
            y = (anatomy.cavity_radii[1] * scale + 5.5) * np.sin(angle) + anatomy.center_y
            path = np.stack([x, y, z], axis=1)
            ribs.append(Capsules.along(path, np.linspace(4.6, 4.0, len(path))))
            if number < 7:
                joint = (side * 14, sternum_y * anatomy.taper(z[-1] + 6), max(z[-1] + 6, -22))
                cartilage.append(Capsules.along([path[-1], joint], 4.0))
            head = (side * 15, anatomy.spine[1] + 6, back + 10)
            processes.append(Capsules.along([head, path[0]], [3.5, 4.6]))
    for back in np.arange(-166, 170, 24.0):
        y = anatomy.spine[1] + 32
        processes.append(Capsules.along([(0, y, back), (0, y + 13, back - 8)], [3.0, 3.0]))
    collar = [
        Capsules.along([(s * 14, -66, 116), (s * 60, -64, 128), (s * 118, -20, 140)], 5.5)
        for s in SIDES
    ]
    return Bones(*(Capsules.joined(group) for group in (ribs, cartilage, collar, processes)))
