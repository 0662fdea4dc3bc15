"""The known pairs of a commissioning run, made from one CT of the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, SettingsError
from ..geometry import Grid
from ..prepare import background_value, body_mask, detect_modality, normalize_intensity
from ..volume import Volume

if TYPE_CHECKING:
    import SimpleITK

#: The structure that every case knows.
LUNGS = "lungs"
#: Corners in the lungs that serve as landmarks, at the most.
_LANDMARKS = 300
#: Independent noise on both images, standard deviation in HU.
NOISE_HU = 20.0
#: The rigid case: degrees about x, y, z through the middle of the image, and mm along them.
_RIGID_DEGREES, _RIGID_MM = (1.0, -1.5, 3.0), (8.0, -6.0, 10.0)
#: Mean and largest motion in the lungs, mm.
_BREATHING = {"small": (4.0, 10.0), "medium": (8.0, 20.0), "large": (20.0, 50.0)}

#: Name -> what it is, in the order in which they run.
CASES = {
    "rigid": "a shift of 14 mm and a rotation of 3.5 degrees",
    **{
        name: f"breathing of {mean:g} mm on average and {most:g} mm at most in the lungs"
        for name, (mean, most) in _BREATHING.items()
    },
}


@dataclass(frozen=True)
class KnownCase:
    """A pair with its truth.

    ``displacement`` is float32 (3, Z, Y, X) on the grid of ``fixed``, LPS mm, fixed to moving.
    ``labels``: 1 in the lungs of the fixed and of the moving image; None without any (only the
    rigid case needs none), and so are ``landmarks``: corresponding corners in the lungs, fixed and
    moving, each (N, 3) LPS mm.
    """

    name: str
    description: str
    fixed: Volume
    moving: Volume
    displacement: np.ndarray
    smallest_jacobian: float
    labels: tuple[Volume, Volume] | None = None
    landmarks: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def lungs(self) -> np.ndarray | None:
        """The lungs of the fixed image, bool (Z, Y, X); None when they are not known."""
        return None if self.labels is None else self.labels[0].array > 0


def usable_ct(volume: Volume) -> tuple[Volume, list[str]]:
    """The CT with axes that run left, back and up, as the known motions need it, and notes.

    Flipped and swapped axes are put in order without resampling; tilted scans are resampled.
    Raises :class:`InputError` for MR, whose intensities have no density to change.
    """
    if detect_modality(volume) != "ct":
        raise InputError(
            "The image looks like MR. Commissioning needs a CT: the known change of lung density "
            "and the noise are made in HU."
        )
    import SimpleITK as sitk

    turned = Volume.from_sitk(sitk.DICOMOrient(volume.to_sitk(), "LPS"))
    turned = replace(turned, sha256=volume.sha256, notes=volume.notes)
    if np.abs(turned.grid.direction_matrix - np.eye(3)).max() <= 1e-3:
        return turned, []
    grid = _upright(turned.grid)
    note = "The scan is tilted; it was resampled onto axes that run left, back and up."
    return replace(
        turned.resampled(grid, background=background_value(volume, "ct")),
        sha256=volume.sha256,
        notes=volume.notes,
    ), [note]


def make_case(name: str, image: Volume, seed: int = 0) -> KnownCase:
    """One of :data:`CASES` from a CT of :func:`usable_ct`: the CT itself is the moving image, the
    fixed one is the CT warped by the known motion; both get noise of their own.

    Raises :class:`SettingsError` for an unknown name, :class:`InputError` when a breathing motion
    is asked for and the CT shows no lungs.
    """
    if name == "rigid":
        return _rigid_case(image, seed)
    if name not in _BREATHING:
        raise SettingsError(f"There is no case '{name}'; choose from {', '.join(CASES)}.")
    from ..sample_data.semisynthetic import pair_from_breathing

    mean, most = _BREATHING[name]
    pair = pair_from_breathing(image, mean_motion=mean, max_motion=most, noise=NOISE_HU, seed=seed)
    return KnownCase(
        name,
        f"{CASES[name]}; lung density follows the volume, {NOISE_HU:g} HU of noise on both images",
        pair.fixed,
        pair.moving,
        pair.displacement,
        float(pair.jacobian.min()),
        (pair.fixed_labels, pair.moving_labels),
        (pair.fixed_landmarks, pair.moving_landmarks),
    )


# --- the rigid case ---------------------------------------------------------------------------


def _rigid_case(image: Volume, seed: int) -> KnownCase:
    import SimpleITK as sitk

    from ..sample_data.semisynthetic.pair import with_noise

    transform = sitk.Euler3DTransform(
        tuple(image.grid.center), *np.radians(_RIGID_DEGREES).tolist(), _RIGID_MM
    )
    grid = _seen_by_both(image, transform)
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat32, grid.size, grid.origin, grid.spacing, grid.direction
    )
    displacement = np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)
    warped = sitk.Resample(
        image.to_sitk(),
        grid.size,
        transform,
        sitk.sitkBSpline,
        grid.origin,
        grid.spacing,
        grid.direction,
        background_value(image, "ct"),
    )
    rng = np.random.default_rng([seed, 3])
    return KnownCase(
        "rigid",
        f"{CASES['rigid']}; {NOISE_HU:g} HU of noise on both images",
        Volume(with_noise(sitk.GetArrayFromImage(warped), NOISE_HU, rng), grid),
        Volume(with_noise(image.array, NOISE_HU, rng), image.grid),
        np.ascontiguousarray(displacement),
        1.0,
        *_lungs_by_truth(image, transform, grid),
    )


def _lungs_by_truth(
    image: Volume, transform: SimpleITK.Transform, grid: Grid
) -> tuple[tuple[Volume, Volume] | None, tuple[np.ndarray, np.ndarray] | None]:
    """Lungs of the moving image and corners in them, each with its partner on the fixed grid by a
    linear transform; twice None for a CT without lungs, which can be moved rigidly all the same."""
    from ..field import transform_points
    from ..sample_data.semisynthetic.corners import salient_points
    from ..sample_data.semisynthetic.regions import find_regions, lung_label_map

    try:
        lungs = lung_label_map(image, find_regions(image))
    except InputError:
        return None, None
    moving = salient_points(image, lungs.array > 0, 2 * _LANDMARKS)
    fixed = transform_points(transform.GetInverse(), moving)
    seen = np.flatnonzero(grid.contains(fixed))[:_LANDMARKS]
    return (lungs.resampled(grid, transform, labels=True), lungs), (fixed[seen], moving[seen])


def _seen_by_both(image: Volume, transform: SimpleITK.Transform) -> Grid:
    """The grid without the slices at its ends whose body the scan did not reach."""
    from ..field import transform_points

    grid = image.grid
    body = body_mask(normalize_intensity(image, "ct"), "ct")
    index = np.argwhere(body)[:: max(1, np.count_nonzero(body) // 50_000), ::-1]
    moved = grid.to_index(transform_points(transform, grid.to_physical(index.astype(float))))
    lost = index[(moved[:, 2] < 0) | (moved[:, 2] > grid.size[2] - 1), 2]
    middle = grid.size[2] / 2
    low = int(lost[lost < middle].max(initial=-1)) + 1
    high = grid.size[2] - int(lost[lost >= middle].min(initial=grid.size[2]))
    if low + high > grid.size[2] - 16:
        raise InputError("The scan is too short for a known shift along the body.")
    return grid.padded((0, 0, -low), (0, 0, -high))


def _upright(grid: Grid) -> Grid:
    """A grid with axes that run left, back and up, over the same place with the same spacing."""
    corners = grid.corners()
    low, high = corners.min(axis=0), corners.max(axis=0)
    spacing = np.asarray(grid.spacing)
    size = np.ceil((high - low) / spacing).astype(int)
    return Grid(tuple(int(n) for n in size), grid.spacing, tuple(map(float, low + spacing / 2)))
