"""What the scanner sees: HU and labels of the anatomy at arbitrary points."""

from __future__ import annotations

import numpy as np

from .anatomy import HALF_EXTENT, Anatomy
from .shapes import Capsules, PointCells, ellipsoid, soft_inside
from .texture import Texture

#: Label values; the six structures of the GLIDE-Reg paper.
LABEL_NAMES = {1: "lung", 2: "heart", 3: "skeleton", 4: "airway", 5: "liver", 6: "vessel"}
_LABEL = {name: value for value, name in LABEL_NAMES.items()}
_AIR = -1000.0
_CHUNK = 400_000  # points at a time: bounds the memory and stays in the processor's cache


class Painter:
    """Renders one anatomy; ``seed`` fixes the tissue texture, ``edge`` (mm) softens borders."""

    def __init__(self, anatomy: Anatomy, seed: int, edge: float) -> None:
        rng = np.random.default_rng([seed, 3])
        self.anatomy, self.edge = anatomy, edge
        self.fine, self.medium, self.coarse = (Texture(rng, HALF_EXTENT, s) for s in (7, 14, 40))
        self.other_fine, self.other_medium = (Texture(rng, HALF_EXTENT, s) for s in (7, 14))

    def render(
        self, points: np.ndarray, jacobian: np.ndarray | None = None, decorrelation: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """HU float32 (N,) and labels uint8 (N,) at scene points (N, 3), mm.

        ``jacobian`` (N,) scales the density of lung tissue: what fills a smaller volume is denser.
        ``decorrelation`` (0 to 1) replaces that part of the fine texture by an unrelated one.
        """
        hu = np.full(len(points), _AIR, np.float32)
        labels = np.zeros(len(points), np.uint8)
        for begin in range(0, len(points), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            inside = begin + np.flatnonzero(self.anatomy.body(points[chunk]) < self.edge)
            if len(inside):
                density = None if jacobian is None else jacobian[inside]
                canvas = _Canvas(self, points[inside], density, decorrelation)
                canvas.paint_everything()
                hu[inside], labels[inside] = canvas.hu, canvas.labels
        return hu, labels


class _Canvas:
    """Paints organs over each other at a set of points, from the skin inwards."""

    def __init__(
        self, painter: Painter, points: np.ndarray, density: np.ndarray | None, mix: float
    ) -> None:
        self.anatomy, self.edge = painter.anatomy, painter.edge
        self.points, self.density = points, density
        self.cells = PointCells(points)
        self.fine, self.medium = painter.fine(points), painter.medium(points)
        self.coarse = painter.coarse(points)
        if mix > 0:
            keep = np.float32(np.sqrt(1 - mix**2))
            self.fine = keep * self.fine + np.float32(mix) * painter.other_fine(points)
            self.medium = keep * self.medium + np.float32(mix) * painter.other_medium(points)
        self.hu = np.full(len(points), _AIR, np.float32)
        self.labels = np.zeros(len(points), np.uint8)

    def paint_everything(self) -> None:
        self.lung_distance = self.anatomy.lungs(self.points)
        self.cage_distance = self.anatomy.cage(self.points)
        self._chest_wall()
        self._belly()
        self._lungs()
        self._mediastinum()
        self._vessels_and_airways()
        self._skeleton()

    # --- organs, outside in -------------------------------------------------------------------

    def _chest_wall(self) -> None:
        anatomy, (x, y, _) = self.anatomy, self.points.T
        skin = anatomy.body(self.points)
        self._paint(skin, 0)
        self._paint(skin + 2, -100 + 6 * self.medium)  # fat
        muscle = skin + 10 + 3.5 * self.coarse
        self._paint(muscle, 50 + 8 * self.medium)
        # Fat between the layers of muscle, and around the shoulder blades.
        layer = np.abs(self.cage_distance - 17 - 3 * self.coarse) - 1.0
        self._paint(np.maximum(layer, muscle + 4), -70.0)
        self._paint(self.cage_distance, -70 + 10 * self.coarse)
        back = np.hypot(x, 0.8 * (y - anatomy.spine[1] - 22)) - 34
        self._paint(np.maximum(back, muscle + 1), 48 + 8 * self.medium)

    def _belly(self) -> None:
        anatomy, points = self.anatomy, self.points
        below = anatomy.above_diaphragm(points)
        self._paint(np.maximum(below, self.cage_distance + 1), 45.0)  # the diaphragm
        self._paint(np.maximum(below + 4, self.cage_distance + 3), -75 + 30 * self.coarse)
        for side in (-1, 1):
            kidney = anatomy.belly_organ(points, (side * 52, 46, -152), (24, 22, 42))
            self._paint(kidney, 34 + 5 * self.medium)
        stomach = anatomy.belly_organ(points, (54, -22, -108), (46, 48, 46))
        self._paint(stomach, 42.0)
        self._paint(stomach + 4, 20 + 15 * self.coarse)
        gas = np.maximum(
            stomach + 4, points[:, 1] + 48
        )  # rises to the front: the patient is supine
        self._paint(gas, -950.0)
        spleen = anatomy.belly_organ(points, (84, 46, -104), (26, 38, 40))
        self._paint(spleen, 52 + 5 * self.medium)
        liver = anatomy.liver(points)
        self._paint(liver, 62 + 5 * self.medium, "liver")
        vessels = self.cells.distance(anatomy.liver_vessels, 3)
        self._paint(np.maximum(vessels, liver + 3), 36.0)

    def _lungs(self) -> None:
        y = self.points[:, 1] - self.anatomy.center_y
        tissue = -862 + 18 * self.fine + 20 * self.medium + 16 * self.coarse
        tissue = tissue + 45 * np.clip(y / 80, -1, 1)  # denser at the back: the patient is supine
        fissure = soft_inside(self.anatomy.fissures(self.points) - 0.5, self.edge)
        tissue = tissue + 110 * fissure
        if self.density is not None:
            tissue = (tissue - _AIR) * np.clip(self.density, 0.4, 2.5) + _AIR
        self._paint(self.lung_distance, tissue, "lung")
        for nodule in self.anatomy.nodules:
            self._paint(ellipsoid(self.points, nodule.center, nodule.radii), nodule.hu)

    def _mediastinum(self) -> None:
        anatomy = self.anatomy
        heart = anatomy.heart(self.points)
        self._paint(np.maximum(heart - 3, -self.lung_distance), -80.0)  # fat around the heart
        self._paint(heart, 52 + 5 * self.medium, "heart")
        self._paint(heart + 11, 38 + 4 * self.coarse, "heart")  # blood
        great = np.minimum(
            self.cells.distance(anatomy.great_vessels, 4), anatomy.aorta(self.points)
        )
        self._paint(great, 42 + 4 * self.medium)
        esophagus = np.hypot(self.points[:, 0] - 4, self.points[:, 1] - 38) - 7
        self._paint(esophagus, 32.0)

    def _vessels_and_airways(self) -> None:
        anatomy = self.anatomy
        vessels = self.cells.distance(anatomy.vessels, 3)
        in_lung = self.lung_distance < -1
        self._paint(vessels, 42.0)
        self._label(vessels, "vessel", in_lung)
        airways = self.cells.distance(Capsules.joined([anatomy.airways, anatomy.trachea]), 4)
        # The wall's 1 mm is thinner than a voxel: it shows as a faint ring.
        self._paint(airways - 1.0, -330.0)
        self._paint(airways, -985.0, "airway")

    def _skeleton(self) -> None:
        anatomy, bones = self.anatomy, self.anatomy.bones
        x, y, z = self.points.T
        self._bone(self._vertebrae(x, y, z), cortex=3.0, marrow=190.0, hard=470.0)
        self._bone(self.cells.distance(bones.processes, 3), 1.5, 260, 480)
        canal = np.hypot(x, 0.9 * (y - anatomy.spine[1] - 24)) - 8
        self._paint(canal, 22.0)
        self._paint(self.cells.distance(bones.cartilage, 3), 110.0)
        self._bone(self.cells.distance(bones.ribs, 3), 1.8, 230, 620)
        self._bone(self.cells.distance(bones.clavicles, 3), 2.0, 230, 620)
        front = anatomy.center_y - (anatomy.cavity_radii[1] + 4) * anatomy.taper(z)
        sternum = np.maximum.reduce([np.abs(x) - 15, np.abs(y - front) - 5.5, np.abs(z - 42) - 62])
        self._bone(sternum, 2.0, 160, 380)
        for side in (-1, 1):
            self._bone(self._shoulder_blade(side), 1.6, 330, 560)

    def _vertebrae(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Vertebral bodies with disks every 24 mm, and the arch around the canal."""
        spine_y = self.anatomy.spine[1]
        round_body = np.hypot(x / 1.15, y - spine_y) - 16
        self._paint(round_body, 85.0)  # disks
        in_disk = 2.6 - np.abs((z / 24) % 1 - 0.5) * 24
        body = np.maximum(round_body, in_disk)
        arch = np.abs(np.hypot(x, 0.9 * (y - spine_y - 24)) - 10.5) - 2.5
        gap = np.abs((z / 24 + 0.5) % 1 - 0.5) * 24 - 8.5
        return np.minimum(body, np.maximum(arch, gap))

    def _shoulder_blade(self, side: int) -> np.ndarray:
        axes = np.array([[side * 0.80, -0.60, 0.0], [side * 0.60, 0.80, 0.0], [0.0, 0.0, 1.0]])
        return ellipsoid(self.points, (side * 86, 70, 84), (36, 4.5, 56), 3.0, axes)

    # --- brushes ------------------------------------------------------------------------------

    def _paint(
        self, distance: np.ndarray, value: np.ndarray | float, label: str | None = None
    ) -> None:
        """Mixes ``value`` (HU) in where a body is; its soft edge is a voxel's partial volume."""
        near = np.flatnonzero(distance < self.edge)
        share = soft_inside(distance[near], self.edge)
        new = value[near] if isinstance(value, np.ndarray) else value
        self.hu[near] += share * (new - self.hu[near])
        if label is not None:
            self._label(distance, label)

    def _label(self, distance: np.ndarray, label: str, where: np.ndarray | bool = True) -> None:
        self.labels[(distance < 0) & where] = _LABEL[label]

    def _bone(self, distance: np.ndarray, cortex: float, marrow: float, hard: float) -> None:
        """A shell of hard bone, ``cortex`` mm thick, around marrow (HU)."""
        self._paint(distance, hard + 40 * self.fine, "skeleton")
        self._paint(distance + cortex, marrow + 40 * self.fine, "skeleton")
