"""The nodules of the follow-up phantom: what was planned, where each one sits, its exact shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SettingsError
from .phantom.anatomy import SIDES, Anatomy
from .phantom.motion import Breathing
from .phantom.shapes import Capsules, PointCells
from .phantom.trees import scatter

#: The prior's scene z (mm) above which the current scan ends, and how far nodules stay from it.
FIXED_TOP = 88.0
_TOP_GAP = 16.0
#: Clear lung around a solid nodule, mm. Vessels up to ``_THIN`` (radius, mm) make room for it.
_CLEARANCE = 3.0
_THIN = 1.5
#: Samples along the box of a cut nodule: while its size is sought, and for its volume (to 0.3 %).
_COARSE, _FINE = 24, 56


@dataclass(frozen=True)
class PlannedNodule:
    """One row of the plan.

    ``kind`` is solid, juxtapleural or vessel-attached. ``diameter`` (mm, of the sphere of equal
    volume) is the prior's, or the current one's for a new nodule. ``factor`` is current volume
    over prior volume. ``state`` is what tracking should say.
    """

    kind: str
    diameter: float
    factor: float = 1.0
    state: str = "matched"


#: Large ones come first: they find room first.
PLAN: tuple[PlannedNodule, ...] = (
    PlannedNodule("solid", 20, 1.15),
    PlannedNodule("vessel-attached", 14, 0.7),
    PlannedNodule("solid", 12, 1.3),
    PlannedNodule("juxtapleural", 12, 1.4),
    PlannedNodule("vessel-attached", 10, 1.0, "resolved"),
    PlannedNodule("vessel-attached", 9, 1.0),
    PlannedNodule("juxtapleural", 9, 1.0, "new"),
    PlannedNodule("solid", 8, 1.0, "outside field of view"),
    PlannedNodule("solid", 8, 2.0),
    PlannedNodule("juxtapleural", 8, 1.0),
    PlannedNodule("vessel-attached", 7, 1.6),
    PlannedNodule("solid", 7, 1.0, "new"),
    PlannedNodule("juxtapleural", 6.5, 1.8),
    PlannedNodule("solid", 6, 1.0, "resolved"),
    PlannedNodule("solid", 6, 1.0),
    PlannedNodule("solid", 5, 1.5),
    PlannedNodule("solid", 4, 1.0),
)


class NoduleShape:
    """One nodule in one image: an ellipsoid, cut by the pleura where it is juxtapleural.

    ``center`` (3,) is the ellipsoid's in scene mm of that image, ``volume`` (mm^3) and ``centroid``
    (3,) are those of what is inside the lung. ``breathing`` is None in the prior (the scene).
    """

    def __init__(
        self,
        center: np.ndarray,
        volume: float,
        cut: bool,
        anatomy: Anatomy,
        breathing: Breathing | None,
    ) -> None:
        self.center, self.cut = np.asarray(center, float), cut
        self.anatomy, self.breathing = anatomy, breathing
        proportions = np.array([1.0, 0.9, 1.1])
        self.radii = proportions * np.cbrt(volume / (4 / 3 * np.pi * proportions.prod()))
        self.volume, self.centroid = float(volume), self.center
        if cut:  # grow until what is left inside the lung has the volume asked for
            for _ in range(10):
                self.radii = self.radii * np.cbrt(volume / self._inside_lung(_COARSE)[0])
            self.volume, self.centroid = self._inside_lung(_FINE)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which points (N, 3) in scene mm of its image are inside: bool (N,)."""
        inside = (((points - self.center) / self.radii) ** 2).sum(axis=1) < 1
        if self.cut and inside.any():
            inside[inside] = lung_at(self.anatomy, self.breathing, points[inside]) < 0
        return inside

    def _inside_lung(self, count: int) -> tuple[float, np.ndarray]:
        """Volume in mm^3 and centroid of the part inside the lung."""
        steps = (np.arange(count) + 0.5) / count * 2 - 1
        lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        points = self.center + lattice * self.radii
        points = points[self.contains(points)]
        if len(points) == 0:
            raise SettingsError("A phantom nodule came to lie outside the lung; try another seed.")
        share = len(points) / len(lattice)
        return share * 8 * float(self.radii.prod()), points.mean(axis=0)


def lung_at(anatomy: Anatomy, breathing: Breathing | None, points: np.ndarray) -> np.ndarray:
    """Distance to the lungs' surface (N,) at scene points of the prior, or of the current scan."""
    if breathing is not None:
        points = points + breathing.at(points)
    return anatomy.lungs(points.astype(np.float32))


def find_sites(anatomy: Anatomy, breathing: Breathing, seed: int) -> list[np.ndarray]:
    """Centers (3,) in the prior's scene mm, one for each row of the plan.

    Every one keeps clear of the others, and in the current scan of the field of view's edge; the
    one that is planned outside is well beyond it. Raises :class:`SettingsError` if room is short.
    """
    rng = np.random.default_rng([seed, 11])
    candidates = {
        "solid": _inside(anatomy, rng),
        "juxtapleural": _at_the_pleura(anatomy, rng),
        "vessel-attached": _at_vessels(anatomy, rng),
    }
    heights = {k: _current_height(breathing, v) for k, v in candidates.items()}
    depths = {k: _clear_distance(anatomy, v) for k, v in candidates.items()}
    chosen: list[np.ndarray] = []
    sizes: list[float] = []
    for planned in PLAN:
        kind, radius = planned.kind, reach(planned)
        above = heights[kind] - FIXED_TOP
        fits = above > radius + 6 if planned.state.startswith("outside") else above < -_TOP_GAP
        to_pleura, to_vessels = depths[kind]
        if kind != "juxtapleural":
            fits = fits & (to_pleura < -(radius + _CLEARANCE + 1))
        if kind != "vessel-attached":
            fits = fits & (to_vessels > radius + _CLEARANCE)
        for center, size in zip(chosen, sizes, strict=True):
            apart = np.linalg.norm(candidates[kind] - center, axis=1)
            fits = fits & (apart > radius + size + 12)
        if not fits.any():
            raise SettingsError(f"The phantom has no room for {planned}; try another seed.")
        chosen.append(candidates[kind][np.flatnonzero(fits)[0]])
        sizes.append(radius)
    placed = _at_their_depth(anatomy, chosen)
    _clear_vessels(anatomy, placed)
    return placed


def reach(planned: PlannedNodule) -> float:
    """Radius in mm that the nodule needs in the larger of its two images."""
    return 0.5 * planned.diameter * 1.1 * np.cbrt(max(planned.factor, 1.0)) + 0.5


def _current_height(breathing: Breathing, points: np.ndarray) -> np.ndarray:
    """Scene z (N,) in the current scan of points (N, 3) of the prior, mm."""
    return breathing.inverse(points)[0][:, 2]


def _inside(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Places inside both lungs (N, 3), in random order."""
    found = []
    for side in SIDES:
        inside = lambda points, side=side: anatomy.lung(points, side) < -6  # noqa: E731
        found.append(scatter(rng, (side * 62, 4, 40), (62, 92, 100), inside, 1500))
    return rng.permutation(np.concatenate(found))


def _at_the_pleura(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Places on a smooth part of the lungs' surface, in random order (N, 3)."""
    points = np.concatenate([_inside(anatomy, rng)] * 2)
    points = points + rng.normal(0, 2, points.shape)
    for _ in range(12):  # Newton's way down to the surface
        gradient = _lung_gradient(anatomy, points)
        square = np.maximum((gradient**2).sum(axis=1), 0.2)
        value = lung_at(anatomy, None, points)
        points = points - np.clip(value / square, -4, 4)[:, None] * gradient
    normal = _unit(_lung_gradient(anatomy, points))
    keep = np.abs(lung_at(anatomy, None, points)) < 0.05
    for shift in 9 * np.concatenate([np.eye(3), -np.eye(3)]):
        along = shift - normal * (normal @ shift)[:, None]
        keep &= (_unit(_lung_gradient(anatomy, points + along)) * normal).sum(axis=1) > 0.9
    return points[keep]


def _at_vessels(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Places on thin vessels away from the hilum, in random order (N, 3)."""
    tubes = Capsules.joined([tree.tubes for tree in anatomy.vessel_trees])
    middle = (tubes.start + tubes.end) / 2
    length = np.linalg.norm(tubes.end - tubes.start, axis=1)
    thin = (tubes.start_radius > 0.9) & (tubes.start_radius < 1.6) & (length > 4)
    hila = np.stack(list(anatomy.hilum.values()))
    away = np.linalg.norm(middle[:, None] - hila[None], axis=2).min(axis=1) > 40
    return rng.permutation(middle[thin & away])


def _clear_distance(anatomy: Anatomy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the lungs' surface and to airways and vessels that are not thin, mm (N,)."""
    thick = _chosen(anatomy.vessels, anatomy.vessels.start_radius > _THIN)
    tubes = Capsules.joined([thick, anatomy.airways])
    tubes_away = PointCells(points.astype(np.float32)).distance(tubes, 30)
    return lung_at(anatomy, None, points), tubes_away


def _at_their_depth(anatomy: Anatomy, centers: list[np.ndarray]) -> list[np.ndarray]:
    """Moves the centers of juxtapleural nodules a share of their radius into the lung."""
    placed = []
    for number, (planned, center) in enumerate(zip(PLAN, centers, strict=True)):
        if planned.kind == "juxtapleural":
            inward = -_unit(_lung_gradient(anatomy, center[None]))[0]
            center = center + inward * planned.diameter / 2 * (0.3, 0.45, 0.6)[number % 3]
        placed.append(center)
    return placed


def _clear_vessels(anatomy: Anatomy, centers: list[np.ndarray]) -> None:
    """Takes the thin vessels out that run through nodules which touch none."""
    keep = np.ones(len(anatomy.vessels), bool)
    for planned, center in zip(PLAN, centers, strict=True):
        if planned.kind != "vessel-attached":
            away = _distance_to_tubes(anatomy.vessels, center)
            keep &= (away > reach(planned) + _CLEARANCE) | (anatomy.vessels.start_radius > _THIN)
    anatomy.vessels = _chosen(anatomy.vessels, keep)


def _distance_to_tubes(tubes: Capsules, point: np.ndarray) -> np.ndarray:
    """Distance (N,) in mm from one point to the wall of every tube."""
    axis = tubes.end - tubes.start
    along = ((point - tubes.start) * axis).sum(axis=1) / np.maximum((axis**2).sum(axis=1), 1e-6)
    nearest = tubes.start + np.clip(along, 0, 1)[:, None] * axis
    return np.linalg.norm(point - nearest, axis=1) - tubes.start_radius


def _chosen(tubes: Capsules, which: np.ndarray) -> Capsules:
    return Capsules(*(values[which] for values in vars(tubes).values()))


def _lung_gradient(anatomy: Anatomy, points: np.ndarray, step: float = 0.5) -> np.ndarray:
    """Gradient (N, 3) of the distance to the lungs' surface; it points out of the lung."""
    columns = [
        lung_at(anatomy, None, points + step * axis) - lung_at(anatomy, None, points - step * axis)
        for axis in np.eye(3)
    ]
    return np.stack(columns, axis=1) / (2 * step)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-6)[:, None]
