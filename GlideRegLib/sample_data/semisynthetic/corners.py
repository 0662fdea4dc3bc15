"""Points in the lungs that an observer could find again: corners of the image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ...volume import Volume


def salient_points(
    image: Volume, lungs: np.ndarray, count: int, apart_mm: float = 7.0, scale_mm: float = 2.5
) -> np.ndarray:
    """Up to ``count`` corners inside ``lungs`` (bool, Z, Y, X): LPS mm (N, 3), strongest first.

    Foerstner's measure 1 / trace(G^-1), with G the structure tensor over ``scale_mm``: large where
    the image changes in every direction, as at the forks of vessels. Points keep ``apart_mm`` from
    each other and from the edge of the lungs.
    """
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    spacing = image.grid.spacing[::-1]
    inside = ndimage.binary_erosion(lungs[box], iterations=max(1, round(4 / min(spacing))))
    measure = np.where(inside, _distinctiveness(image.array[box], spacing, scale_mm), 0)
    reach = [2 * round(apart_mm / 2 / s) + 1 for s in spacing]
    peaks = (measure == ndimage.maximum_filter(measure, reach)) & (measure > 0)
    index = np.argwhere(peaks)
    index = index[np.argsort(-measure[peaks], kind="stable")]
    index = index[_apart(index * np.asarray(spacing), apart_mm, count)]
    corner = [part.start for part in box]
    return image.grid.to_physical((index + corner)[:, ::-1].astype(float))


def _distinctiveness(array: np.ndarray, spacing: tuple, scale_mm: float) -> np.ndarray:
    """1 / trace(G^-1) at every voxel; in HU^2 per mm^2."""
    clipped = np.clip(array, -1000, 200).astype(np.float32)
    sigma = [0.5 * scale_mm / s for s in spacing]
    smooth = ndimage.gaussian_filter(clipped, sigma)
    slopes = [np.gradient(smooth, spacing[axis], axis=axis) for axis in range(3)]
    window = [scale_mm / s for s in spacing]

    def averaged(i: int, j: int) -> np.ndarray:
        return ndimage.gaussian_filter(slopes[i] * slopes[j], window)

    a, b, c, d, e, f = (
        averaged(*pair) for pair in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    )
    minors = (d * f - e * e) + (a * f - c * c) + (a * d - b * b)  # trace of the adjugate
    determinant = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
    return np.maximum(determinant, 0) / np.maximum(minors, 1e-3)


def _apart(points: np.ndarray, distance: float, count: int) -> list[int]:
    """The first points (N, 3) in order of which no two are nearer than ``distance``."""
    chosen: list[int] = []
    for k, point in enumerate(points):
        if len(chosen) == count:
            break
        if not chosen or np.linalg.norm(points[chosen] - point, axis=1).min() >= distance:
            chosen.append(k)
    return chosen
