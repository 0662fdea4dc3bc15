"""Local refinement: a small translation that lays the prior nodule onto the current scan.

The prior nodule is sampled from its native image through the transform, in a small window around
the predicted position, and slid over the native current image. Normalized cross correlation is the
score. It corrects what the field left over, a millimeter or two, and must not walk away: the search
is bounded, a shift costs a little, and it counts only when the score is clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SettingsError
from ..volume import Volume
from .mapping import Mapping
from .nodules import as_point
from .records import Refinement

#: The prior shows something when its values spread by this share of the compared range.
_LEAST_SPREAD = 0.015
#: A fit between samples may end this much below the start, which then was right already.
_NO_WORSE = 0.01
#: By how much the correlation at another scale must be better.
_SCALE_HANDICAP = 0.005
#: Steps of Newton's method after the search on the lattice of shifts.
_SUBVOXEL_STEPS = 6


@dataclass(frozen=True)
class RefineSettings:
    """``enabled`` switches the refinement. ``bound_mm``: longest shift along each axis.

    ``values``: what is compared, HU; bone and metal beyond it would outweigh everything else.
    ``scales``: the prior is also tried smaller and larger, because a grown nodule is a flat target
    for a small one. ``spacing_mm`` of the samples; the window reaches ``margin_mm`` beyond the
    nodule, whose diameter is taken as ``diameter_mm`` where it is not known. ``penalty`` is
    subtracted from the correlation per mm^2 of shift. A shift is accepted when the correlation is
    at least ``minimum_score``, is not worse than without it, lies inside the bound, and stands out
    by ``minimum_contrast`` from the mean over the edge of the search range.
    """

    enabled: bool = True
    bound_mm: float = 3.0
    scales: tuple[float, ...] = (0.8, 1.0, 1.25, 1.5)
    values: tuple[float, float] = (-1000.0, 300.0)
    spacing_mm: float = 1.0
    margin_mm: float = 4.0
    diameter_mm: float = 8.0
    penalty: float = 0.002
    minimum_score: float = 0.7
    minimum_contrast: float = 0.15

    def check(self) -> None:
        """Raises :class:`SettingsError` when a value is out of its range."""
        if not (0.5 <= self.bound_mm <= 10 and 0.25 <= self.spacing_mm <= 3):
            raise SettingsError("Refinement needs a bound of 0.5-10 mm and a spacing of 0.25-3 mm.")
        if not self.scales or not all(0.25 <= scale <= 4 for scale in self.scales):
            raise SettingsError("Refinement needs scales between 0.25 and 4.")
        if not self.values[0] < self.values[1]:
            raise SettingsError("Refinement needs a range of values whose end is above its start.")
        if not (self.margin_mm >= 0 and self.diameter_mm > 0 and self.penalty >= 0):
            raise SettingsError(
                "Refinement needs a margin, a diameter and a penalty that are >= 0."
            )


def refine(
    mapping: Mapping,
    fixed: Volume,
    moving: Volume,
    predicted: np.ndarray,
    settings: RefineSettings,
    diameter_mm: float | None = None,
) -> Refinement:
    """The shift (LPS mm) of a predicted position (3,) in the fixed image, with its score.

    ``diameter_mm`` of the nodule sets the window. Nothing is accepted where the window leaves
    either image by more than a fifth.
    """
    predicted = np.asarray(predicted, dtype=float)
    offsets, weights = _window(settings, diameter_mm or settings.diameter_mm)
    found = []
    for scale in settings.scales:
        places = mapping.transform_points(predicted + offsets / scale)
        seen = moving.grid.contains(places) & fixed.grid.contains(predicted + offsets)
        if seen.mean() < 0.8:
            return _refused((0.0, 0.0, 0.0), 0.0, 0.0, "the window leaves the image")
        template = _sample(moving, places[seen], settings.values)
        score = _Score(fixed, predicted + offsets[seen], template, weights[seen], settings.values)
        if score.spread < _LEAST_SPREAD * (settings.values[1] - settings.values[0]):
            return _refused((0.0, 0.0, 0.0), 0.0, 0.0, "the prior image shows nothing there")
        found.append(_search(score, settings))
    handicap = [_SCALE_HANDICAP * (scale != 1) for scale in settings.scales]
    return max(zip(found, handicap, strict=True), key=lambda pair: pair[0].score - pair[1])[0]


class _Score:
    """Normalized cross correlation of the template with the fixed image, by shift (K, 3) in mm."""

    def __init__(
        self,
        fixed: Volume,
        points: np.ndarray,
        template: np.ndarray,
        weights: np.ndarray,
        limits: tuple[float, float],
    ) -> None:
        self._fixed, self._points, self._limits = fixed, points, limits
        self._weights = weights / weights.sum()
        centered = template - self._weights @ template
        #: Standard deviation of the template, HU.
        self.spread = float(np.sqrt(self._weights @ centered**2))
        self._template = centered / max(self.spread, 1e-6)
        self._least = 1e-3 * (limits[1] - limits[0])

    def __call__(self, shifts: np.ndarray) -> np.ndarray:
        shifts = np.atleast_2d(shifts)
        points = (shifts[:, None] + self._points[None]).reshape(-1, 3)
        values = _sample(self._fixed, points, self._limits).reshape(len(shifts), -1)
        values = values - (values @ self._weights)[:, None]
        spread = np.sqrt(values**2 @ self._weights)
        return (values * self._template) @ self._weights / np.maximum(spread, self._least)


def _search(score: _Score, settings: RefineSettings) -> Refinement:
    """The best shift on a lattice of 1 mm or less, then between its nodes."""
    bound = settings.bound_mm
    steps = 2 * int(np.ceil(bound)) + 1
    axis = np.linspace(-bound, bound, steps)
    shifts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    correlation = score(shifts)
    objective = correlation - settings.penalty * (shifts**2).sum(axis=1)
    best = _between(score, shifts[objective.argmax()], settings)
    before, after = (float(v) for v in score(np.stack((np.zeros(3), best))))
    edge = np.abs(shifts).max(axis=1) > bound - 1e-6
    contrast = after - float(correlation[edge].mean())
    reason = ""
    if after < settings.minimum_score:
        reason = "the images do not agree well enough there"
    elif np.abs(best).max() > bound - 0.05:
        reason = "the best place lies at the edge of the search range"
    elif contrast < settings.minimum_contrast:
        reason = "the best place does not stand out"
    elif after < before - _NO_WORSE:
        reason = "no place nearby is better"
    if reason:
        return _refused(best, before, after, reason)
    return Refinement(as_point(best), before, after, True)


def _between(score: _Score, start: np.ndarray, settings: RefineSettings) -> np.ndarray:
    """Newton steps on the penalized score with a Hessian from differences, inside the bound."""
    here, width = start.astype(float), 0.5
    stencil = width * np.array(
        [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)], dtype=float
    )
    x, y, z = stencil.T
    design = np.stack([np.ones(27), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    solve = np.linalg.pinv(design)
    for _ in range(_SUBVOXEL_STEPS):
        around = here + stencil
        values = score(around) - settings.penalty * (around**2).sum(axis=1)
        _, gx, gy, gz, xx, yy, zz, xy, xz, yz = solve @ values
        hessian = np.array([[2 * xx, xy, xz], [xy, 2 * yy, yz], [xz, yz, 2 * zz]])
        lowest, axes = np.linalg.eigh(hessian)
        # Where the score does not curve downwards, a step along the gradient is kept short.
        curvature = np.minimum(lowest, -2 * settings.penalty - 1e-3)
        step = -axes @ ((axes.T @ [gx, gy, gz]) / curvature)
        step *= min(1.0, width / max(np.linalg.norm(step), 1e-9))
        here = np.clip(here + step, -settings.bound_mm, settings.bound_mm)
        if np.linalg.norm(step) < 0.01:
            break
    return here


def _window(settings: RefineSettings, diameter: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (N, 3) in mm of the samples in a ball, and their weights: less towards its rim."""
    radius = diameter / 2 + settings.margin_mm
    # A large nodule needs no finer samples than a small one to be placed as well.
    spacing = max(settings.spacing_mm, radius / 10)
    count = int(np.floor(radius / spacing))
    axis = spacing * np.arange(-count, count + 1)
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.linalg.norm(offsets, axis=1)
    kept = distance <= radius
    weights = np.clip((radius - distance[kept]) / settings.margin_mm, 0.1, 1.0)
    return offsets[kept], weights


def _sample(volume: Volume, points: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values (N,) at LPS points, linear between voxels, limited to what is compared."""
    from scipy import ndimage

    index = volume.grid.to_index(points)[:, ::-1].T
    values = ndimage.map_coordinates(
        volume.array, index, order=1, mode="nearest", output=np.float64
    )
    return np.clip(values, *limits)


def _refused(shift: np.ndarray | tuple, before: float, after: float, reason: str) -> Refinement:
    return Refinement(as_point(shift), float(before), float(after), False, reason)
