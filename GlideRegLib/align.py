"""Initial alignment: several starts, rigid then affine on mutual information, the best is kept.

SimpleITK does the work at a coarse resolution; one thread and a fixed seed make it repeatable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .constraints import LandmarkConstraints
from .field import affine_to_sitk, linear_matrix
from .geometry import Grid
from .progress import Progress
from .volume import Volume

if TYPE_CHECKING:
    import SimpleITK

#: Grid spacings in mm: rigid search and affine refinement.
COARSE_SPACING = 6.0
FINE_SPACING = 4.0
#: An alignment must beat the images as they are by this share of the score to be taken.
MINIMUM_GAIN = 0.01
#: How much farther apart (mm, median) than their own alignment the images' one may leave the
#: landmark pairs: what images say about millions of voxels counts more than six points, and the
#: search that follows reaches farther than this (benchmarks/constraints.py).
LANDMARK_SLACK_MM = 10.0
_BINS = 32
_SEED = 7
_LUNG_HU = (-1000.0, -600.0)
#: Score, name and 4x4 matrix.
_Candidate = tuple[float, str, np.ndarray]


def initial_alignment(
    fixed: Volume,
    moving: Volume,
    masks: tuple[np.ndarray, np.ndarray],
    modality: str,
    progress: Progress,
    landmarks: LandmarkConstraints | None = None,
) -> tuple[np.ndarray, str]:
    """The affine start: 4x4 matrix from fixed to moving LPS mm, and what it came from.

    ``fixed`` and ``moving`` hold normalized intensities; ``masks`` are their body masks (bool).
    Starts: as is, centers of the images, centroids of the bodies, centroids of the lungs (CT). Each
    gets a short rigid search; the best goes on to an affine one. When nothing beats the images as
    they are, the identity is returned. ``landmarks`` that contradict what the images found put
    their own alignment in its place.
    """
    coarse = _Scorer(fixed, moving, masks, COARSE_SPACING)
    fine = _Scorer(fixed, moving, masks, FINE_SPACING)
    starts = _starts(fixed, moving, masks, modality)
    as_is = coarse.score(np.eye(4))
    candidates: list[_Candidate] = [(as_is * (1 + MINIMUM_GAIN), "as is", np.eye(4))]
    for number, (name, matrix) in enumerate(starts.items()):
        progress.update(0.6 * number / len(starts))
        rigid = coarse.optimize(matrix, affine=False)
        candidates.append((coarse.score(rigid), f"{name}, rigid", rigid))
    progress.update(0.6)
    _, name, matrix = max(candidates, key=lambda candidate: candidate[0])
    refined = fine.optimize(matrix, affine=True)
    if fine.score(refined) > fine.score(matrix) and _is_plausible(refined):
        matrix, name = refined, f"{name}, affine"
    if landmarks is not None:
        matrix, name = _with_landmarks(matrix, name, candidates, landmarks, coarse, fine)
    progress.update(1.0)
    return matrix, name


def _with_landmarks(
    found: np.ndarray,
    name: str,
    candidates: list[_Candidate],
    landmarks: LandmarkConstraints,
    coarse: _Scorer,
    fine: _Scorer,
) -> tuple[np.ndarray, str]:
    """The alignment that the images found, unless the landmark pairs contradict it.

    Then their own alignment, what mutual information makes of it, and the other candidates
    compete: the best score wins among those that leave the pairs about as near as the nearest one.
    """
    through = landmarks.alignment()
    limit = 1.5 * landmarks.misfit(through) + LANDMARK_SLACK_MM
    if landmarks.misfit(found) <= limit:
        return found, name
    rigid = coarse.optimize(through, affine=False)
    candidates = [
        *candidates,
        (coarse.score(through), "landmarks", through),
        (coarse.score(rigid), "landmarks, rigid", rigid),
    ]
    near = [c for c in candidates if landmarks.misfit(c[2]) <= limit]
    _, name, matrix = max(near, key=lambda candidate: candidate[0])
    refined = fine.optimize(matrix, affine=True)
    better = fine.score(refined) > fine.score(matrix) and _is_plausible(refined)
    if better and landmarks.misfit(refined) <= limit:
        return refined, f"{name}, affine"
    return matrix, name


def _starts(
    fixed: Volume, moving: Volume, masks: tuple[np.ndarray, np.ndarray], modality: str
) -> dict[str, np.ndarray]:
    """Translations to try, by name."""

    def shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, 3] = b - a
        return matrix

    starts = {
        "as is": np.eye(4),
        "image centers": shift(fixed.grid.center, moving.grid.center),
        "body centroids": shift(_centroid(masks[0], fixed.grid), _centroid(masks[1], moving.grid)),
    }
    if modality == "ct":
        lungs = [_lungs(v, m) for v, m in zip((fixed, moving), masks, strict=True)]
        if all(lung.mean() > 0.02 for lung in lungs):
            starts["lung centroids"] = shift(
                _centroid(lungs[0], fixed.grid), _centroid(lungs[1], moving.grid)
            )
    return starts


def _lungs(volume: Volume, mask: np.ndarray) -> np.ndarray:
    low, high = _LUNG_HU
    return mask & (volume.array > low) & (volume.array < high)


def _centroid(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Center of mass of a mask in LPS mm."""
    index = np.array(ndimage.center_of_mass(mask))[::-1]
    return grid.to_physical(index[None])[0]


def _is_plausible(matrix: np.ndarray) -> bool:
    """Same patient, another breath: no mirror, and no axis scaled by more than a third."""
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return np.linalg.det(matrix[:3, :3]) > 0 and scales.min() > 0.7 and scales.max() < 1.4


class _Scorer:
    """Both images at one coarse spacing: scores and optimizes transforms between them."""

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        masks: tuple[np.ndarray, np.ndarray],
        spacing: float,
    ) -> None:
        self._fixed, self._fixed_mask = _coarse(fixed, masks[0], spacing)
        self._moving, self._moving_mask = _coarse(moving, masks[1], spacing)
        self._center = _centroid(self._fixed_mask.array > 0, self._fixed.grid)

    def score(self, matrix: np.ndarray) -> float:
        """Mutual information (nats) over the fixed body, times the share of it that overlaps."""
        affine = affine_to_sitk(matrix)
        inside = self._moving_mask.resampled(self._fixed.grid, affine, 0, labels=True).array > 0
        body = self._fixed_mask.array > 0
        both = body & inside
        union = np.count_nonzero(body)
        if np.count_nonzero(both) < 0.05 * union:
            return 0.0
        warped = self._moving.resampled(self._fixed.grid, affine, 0).array
        histogram = np.histogram2d(self._fixed.array[both], warped[both], bins=_BINS)[0]
        joint = histogram / histogram.sum()
        outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        filled = joint > 0
        information = float((joint[filled] * np.log(joint[filled] / outer[filled])).sum())
        return information * np.count_nonzero(both) / union

    def optimize(self, matrix: np.ndarray, affine: bool) -> np.ndarray:
        """Refines a start (4x4) by Mattes mutual information; returns a 4x4 matrix."""
        import SimpleITK as sitk

        start = affine_to_sitk(matrix)
        method = self._method(sitk, iterations=120 if affine else 60)
        if affine:
            moved = sitk.AffineTransform(3)
            moved.SetMatrix(start.GetMatrix())
        else:
            moved = sitk.Euler3DTransform()
        # Around the center of the body, so that angles and shifts do not fight each other.
        moved.SetCenter(self._center.tolist())
        target = np.asarray(start.TransformPoint(self._center.tolist()))
        moved.SetTranslation((target - self._center).tolist())
        method.SetInitialTransform(moved, inPlace=True)
        # The metric adds up per-thread sums; only one thread gives the same sum every time.
        threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        try:
            method.Execute(self._fixed.to_sitk(), self._moving.to_sitk())
        except RuntimeError:  # the start does not overlap: another one will
            return matrix
        finally:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        return linear_matrix(moved)

    def _method(self, sitk: object, iterations: int) -> SimpleITK.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.5, _SEED)
        method.SetMetricFixedMask(self._fixed_mask.to_sitk())
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=4.0,
            minStep=0.05,
            numberOfIterations=iterations,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-5,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([2, 1])
        method.SetSmoothingSigmasPerLevel([1, 0])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
        return method


def _coarse(volume: Volume, mask: np.ndarray, spacing: float) -> tuple[Volume, Volume]:
    """Image and mask on an isotropic grid of the given spacing (mm), blurred to fit it."""
    grid = volume.grid.covering_box(volume.grid.corners(), spacing)
    sigma = [max(0.4 * spacing / s, 0.0) for s in reversed(volume.grid.spacing)]
    smooth = Volume(ndimage.gaussian_filter(volume.array, sigma, mode="nearest"), volume.grid)
    image = smooth.resampled(grid, background=float(volume.array.min()))
    return image, Volume(mask.astype(np.uint8), volume.grid).resampled(grid, labels=True)
