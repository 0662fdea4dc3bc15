"""Makes the phantom pair: two CTs of one chest, and the exact truth between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ...errors import SettingsError
from ...geometry import Grid
from ...volume import Volume
from ..known_pair import KnownPair
from .anatomy import Anatomy
from .motion import Branches, Breathing
from .render import LABEL_NAMES, Painter

#: Where the middle of the chest lies in the scanner, LPS mm. Not zero, so that a forgotten origin
#: shows.
CHEST_CENTER = np.array([6.0, -152.0, -410.0])

#: Settings of the pairs in the project's tables.
PRESETS: dict[str, dict] = {
    "breathing": {"amplitude": 35.0},
    "sliding": {"amplitude": 35.0, "sliding": True},
    "hard": {
        "amplitude": 55.0,
        "noise": 45.0,
        "decorrelation": 0.8,
        "offset": (6.0, -4.0, 8.0),
    },
    "extreme": {
        "amplitude": 75.0,
        "noise": 80.0,
        "decorrelation": 0.8,
        "vessel_targets": 130,
        "offset": (6.0, -4.0, 8.0),
        "rotation": (0.0, 0.0, 5.0),
    },
}


@dataclass(frozen=True)
class PhantomSettings:
    """How to make a phantom pair.

    ``size`` (voxels) and ``spacing`` (mm) in x, y, z; the grid is centered on the chest, which is
    320 x 256 x 320 mm. ``amplitude`` is the motion of the diaphragm in mm, ``irregularity`` the
    standard deviation of the random part in mm, ``sliding`` lets the lungs slide along the chest
    wall. ``noise`` in HU; ``decorrelation`` (0 to 1) is the share of fine tissue texture that does
    not correspond. ``offset`` (mm) and ``rotation`` (degrees about x, y, z) lay the patient
    differently. ``vessel_targets`` is how many places each of the four vessel trees reaches;
    ``landmarks`` how many vessel forks are returned at most.
    """

    size: tuple[int, int, int] = (160, 128, 160)
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    amplitude: float = 35.0
    irregularity: float = 2.0
    sliding: bool = False
    noise: float = 18.0
    decorrelation: float = 0.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    vessel_targets: int = 520
    landmarks: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "amplitude": (0, 90),
            "irregularity": (0, 5),
            "noise": (0, 300),
            "decorrelation": (0, 1),
            "vessel_targets": (10, 5000),
            "landmarks": (1, 5000),
            "seed": (0, 2**31),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"The phantom's {name} must be {low} to {high}.")
        if min(self.size) < 16 or min(self.spacing) <= 0:
            raise SettingsError("The phantom needs at least 16 voxels along each axis.")

    @property
    def grid(self) -> Grid:
        """The grid of both images, centered on the chest."""
        half = (np.asarray(self.size) - 1) / 2 * np.asarray(self.spacing)
        return Grid(tuple(self.size), tuple(self.spacing), tuple(map(float, CHEST_CENTER - half)))


@dataclass(frozen=True)
class PhantomPair(KnownPair):
    """A known pair with nodules and the sliding compartment.

    ``fixed_nodules`` and ``moving_nodules`` (N, 3) are the centers in LPS mm, ``nodule_radii``
    (N,) the mean radii in mm. ``cavity`` is a bool array (Z, Y, X) on the fixed grid: the inside
    of the wall along which the lungs slide. ``settings`` made it.
    """

    fixed_nodules: np.ndarray
    moving_nodules: np.ndarray
    nodule_radii: np.ndarray
    cavity: np.ndarray
    settings: PhantomSettings


def make_phantom_pair(**settings: object) -> PhantomPair:
    """A thorax phantom pair; the keywords are those of :class:`PhantomSettings`.

    The moving image is the scene S at inhale, the fixed one S(phi(x)) at exhale, both evaluated
    analytically: no image is interpolated, so the truth is exact. Lung tissue is denser in the
    fixed image by det J. The same settings give the same pair. Raises :class:`SettingsError`.
    """
    chosen = PhantomSettings(**settings)
    anatomy = Anatomy(chosen.seed, chosen.vessel_targets)
    breathing = Breathing(
        anatomy,
        chosen.seed,
        chosen.amplitude,
        chosen.sliding,
        chosen.irregularity,
        chosen.offset,
        chosen.rotation,
    )
    painter = Painter(anatomy, chosen.seed, edge=max(chosen.spacing) / 2)
    grid = chosen.grid
    first = np.asarray(grid.origin) - CHEST_CENTER
    axes = [first[i] + grid.spacing[i] * np.arange(grid.size[i]) for i in range(3)]
    branches = breathing.on_axes(*axes)
    displacement = branches.blended().astype(np.float32)
    jacobian = true_jacobian(branches, breathing.sliding, grid)

    points = np.stack(np.meshgrid(*axes[::-1], indexing="ij")[::-1], axis=-1).astype(np.float32)
    moving, moving_labels = painter.render(points.reshape(-1, 3))
    points += np.moveaxis(displacement, 0, -1)
    fixed, fixed_labels = painter.render(
        points.reshape(-1, 3), jacobian.ravel(), chosen.decorrelation
    )
    noise = np.random.default_rng([chosen.seed, 4])
    fixed_landmarks, moving_landmarks = _landmarks(anatomy, breathing, chosen)
    fixed_nodules, moving_nodules, radii = _nodules(anatomy, breathing, chosen)
    return PhantomPair(
        name=f"phantom-{chosen.seed}",
        description=_describe(chosen),
        fixed=Volume(with_noise(fixed.reshape(grid.shape), chosen.noise, noise), grid),
        moving=Volume(with_noise(moving.reshape(grid.shape), chosen.noise, noise), grid),
        fixed_labels=Volume(fixed_labels.reshape(grid.shape), grid),
        moving_labels=Volume(moving_labels.reshape(grid.shape), grid),
        label_names=dict(LABEL_NAMES),
        displacement=displacement,
        jacobian=jacobian,
        fixed_landmarks=fixed_landmarks,
        moving_landmarks=moving_landmarks,
        fixed_nodules=fixed_nodules,
        moving_nodules=moving_nodules,
        nodule_radii=radii,
        cavity=branches.share > 0.5,
        settings=chosen,
    )


def true_jacobian(branches: Branches, sliding: bool, grid: Grid) -> np.ndarray:
    """Determinant of the true map (Z, Y, X); at a sliding wall that of each side by itself."""
    import torch

    from ...field import jacobian_determinant

    def determinant(vectors: np.ndarray) -> np.ndarray:
        return jacobian_determinant(torch.from_numpy(vectors.astype(np.float32)), grid).numpy()

    if not sliding:
        return determinant(branches.blended())
    return np.where(branches.share > 0.5, determinant(branches.inner), determinant(branches.outer))


def _landmarks(
    anatomy: Anatomy, breathing: Breathing, chosen: PhantomSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Forks of the lung vessels in both images, LPS mm (N, 3), in random order."""
    forks = np.concatenate([t.forks[t.fork_radii > 0.75] for t in anatomy.vessel_trees])
    forks = forks[anatomy.lungs(forks.astype(np.float32)) < -5]
    order = np.random.default_rng([chosen.seed, 5]).permutation(len(forks))
    fixed, moving, _ = _traced_back(forks[order], breathing, chosen.grid)
    return fixed[: chosen.landmarks], moving[: chosen.landmarks]


def _nodules(
    anatomy: Anatomy, breathing: Breathing, chosen: PhantomSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodule centers in both images, LPS mm (N, 3), and their mean radii in mm (N,)."""
    centers = np.array([nodule.center for nodule in anatomy.nodules])
    radii = np.array([nodule.radii.mean() for nodule in anatomy.nodules])
    fixed, moving, found = _traced_back(centers, breathing, chosen.grid)
    return fixed, moving, radii[found]


def _traced_back(
    points: np.ndarray, breathing: Breathing, grid: Grid, margin: float = 4.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene points of the moving image in both images, LPS mm, and which of them were kept.

    Points nearer than ``margin`` mm to the edge of either image, or without an exact counterpart,
    are left out.
    """
    origin, missing = breathing.inverse(points)
    fixed, moving = origin + CHEST_CENTER, origin + breathing.at(origin) + CHEST_CENTER
    low, high = grid.corners().min(axis=0) + margin, grid.corners().max(axis=0) - margin
    kept = missing < 1e-3
    for place in (fixed, moving):
        kept &= ((place > low) & (place < high)).all(axis=1)
    return fixed[kept], moving[kept], kept


def with_noise(image: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Adds scanner noise (standard deviation in HU, slightly correlated), clipped as CT is."""
    grain = gaussian_filter(rng.standard_normal(image.shape).astype(np.float32), 0.6)
    return np.clip(image + grain * np.float32(noise / grain.std()), -1024, 1500)


def _describe(chosen: PhantomSettings) -> str:
    kind = "sliding along the chest wall" if chosen.sliding else "smooth"
    changed = {
        name: value
        for name, value in asdict(chosen).items()
        if value != PhantomSettings.__dataclass_fields__[name].default
    }
    return f"Analytic thorax phantom with exact truth, breathing motion {kind}; settings {changed}."
