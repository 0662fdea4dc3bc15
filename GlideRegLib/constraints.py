"""Landmark pairs that guide a registration: what they say about the start, and what came of them.

Clinicians place 3 to 10 pairs where a case is hard. They compete for the start (a linear alignment
and a spline of what it leaves) and pull softly in the refinement (``optimize/point_term.py``).
Landmarks that only measure the result are no constraints; they never come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import RBFInterpolator

from .errors import InputError
from .geometry import Grid, transform_points
from .quality import summarize_errors

if TYPE_CHECKING:
    from .result import Result

#: A pair is suspect when the others agree and it misses what they predict by this factor of their
#: own misfit, and by this many mm: lungs that breathe deeply miss a rigid motion by 10 to 20 mm.
SUSPECT_FACTOR = 4.5
SUSPECT_MM = 15.0
#: Spread (mm, root mean square) along every axis that an affine alignment needs.
_SPREAD_MM = 15.0
#: How closely the spline follows the points, in mm of distance: observers err by 1 to 2 mm.
_SMOOTHING = 4.0


@dataclass(frozen=True)
class LandmarkConstraints:
    """Corresponding points ``fixed`` and ``moving``, float64 (N, 3), LPS mm of their own image."""

    fixed: np.ndarray
    moving: np.ndarray

    @classmethod
    def checked(
        cls, pair: tuple[np.ndarray, np.ndarray], fixed_grid: Grid, moving_grid: Grid
    ) -> LandmarkConstraints:
        """From two lists of points. Raises :class:`InputError` with one sentence when they cannot
        be used: none at all, different counts, NaN, or points outside their image."""
        points = []
        for role, given in zip(("fixed", "moving"), pair, strict=True):
            array = np.asarray(given, dtype=float)
            if array.ndim != 2 or array.shape[1:] != (3,) or not np.isfinite(array).all():
                raise InputError(
                    f"The {role} landmark constraints must be rows of three finite coordinates "
                    "(LPS mm), at least one."
                )
            points.append(array)
        if len(points[0]) != len(points[1]):
            raise InputError(
                f"There are {len(points[0])} fixed and {len(points[1])} moving landmark "
                "constraints; row k of one must belong to row k of the other."
            )
        if len(points[0]) < 1:
            raise InputError("Landmark constraints need at least one pair of points.")
        for role, array, grid in zip(
            ("fixed", "moving"), points, (fixed_grid, moving_grid), strict=True
        ):
            outside = np.flatnonzero(~grid.contains(array)) + 1
            if len(outside):
                raise InputError(
                    f"Landmark constraint {outside[0]} lies outside the {role} image "
                    f"({len(outside)} of {len(array)} do); check the frame (LPS or RAS) and that "
                    "the lists are not swapped."
                )
        return cls(*points)

    def __len__(self) -> int:
        return len(self.fixed)

    # --- the start ----------------------------------------------------------------------------

    @property
    def suspects(self) -> np.ndarray:
        """Which pairs (bool, N) the others contradict: at most a third of them.

        The pair is left out that the rigid motion of the others misses worst, as long as it stands
        out; fewer than six pairs cannot tell who is wrong.
        """
        kept = np.ones(len(self), dtype=bool)
        for _ in range(len(self) // 3):
            if kept.sum() < 6:
                break
            worst, own = self._worst(np.flatnonzero(kept))
            if own is None:
                break
            kept[worst] = False
        return ~kept

    def _worst(self, rows: np.ndarray) -> tuple[int, float | None]:
        """The pair that stands out most among ``rows``, and by how many mm; None: none does."""
        best = (0.0, -1, 0.0)
        for row in rows:
            others = rows[rows != row]
            motion = rigid_motion(self.fixed[others], self.moving[others])
            errors = np.linalg.norm(transform_points(motion, self.fixed) - self.moving, axis=1)
            misfit = max(float(np.sqrt(np.mean(errors[others] ** 2))), 1.0)
            best = max(best, (errors[row] / misfit, int(row), float(errors[row])))
        stands_out = best[0] > SUSPECT_FACTOR and best[2] > SUSPECT_MM
        return best[1], best[2] if stands_out else None

    def alignment(self) -> np.ndarray:
        """The linear motion through the pairs, 4x4 from fixed to moving LPS mm.

        A shift for one or two, rigid for three to five, affine for six and more that spread along
        every axis. Suspect pairs do not count.
        """
        kept = ~self.suspects
        fixed, moving = self.fixed[kept], self.moving[kept]
        if len(fixed) < 3:
            matrix = np.eye(4)
            matrix[:3, 3] = (moving - fixed).mean(axis=0)
            return matrix
        rigid = rigid_motion(fixed, moving)
        spread = np.linalg.svd(fixed - fixed.mean(axis=0), compute_uv=False) / np.sqrt(len(fixed))
        if len(fixed) < 6 or spread[-1] < _SPREAD_MM:
            return rigid
        affine = _affine_motion(fixed, moving)
        scales = np.linalg.svd(affine[:3, :3], compute_uv=False)
        plausible = np.linalg.det(affine[:3, :3]) > 0 and scales[2] > 0.7 and scales[0] < 1.4
        return affine if plausible else rigid

    def misfit(self, matrix: np.ndarray) -> float:
        """Median distance in mm that a 4x4 alignment leaves; one wrong pair does not move it."""
        errors = np.linalg.norm(transform_points(matrix, self.fixed) - self.moving, axis=1)
        return float(np.median(errors))

    def after(self, initial: np.ndarray) -> LandmarkConstraints:
        """The same pairs with the moving points taken back through the start (4x4): both in the
        frame of the fixed image, where the field is looked for."""
        return LandmarkConstraints(
            self.fixed, transform_points(np.linalg.inv(initial), self.moving)
        )

    def within(self, grid: Grid) -> LandmarkConstraints:
        """Those whose fixed point lies on a grid."""
        kept = grid.contains(self.fixed)
        return LandmarkConstraints(self.fixed[kept], self.moving[kept])

    def spline(self, grid: Grid) -> np.ndarray:
        """A smooth displacement through the pairs, float32 (3, Z, Y, X), LPS mm.

        Their alignment plus the biharmonic spline of three dimensions (kernel r) through what it
        leaves: it bends least, and far from the points it levels off instead of growing. Suspect
        pairs do not count.
        """
        kept, alignment = ~self.suspects, self.alignment()
        rest = (self.moving - transform_points(alignment, self.fixed))[kept]
        # Two clicks on one spot would make the equations singular without the smoothing.
        spline = RBFInterpolator(
            self.fixed[kept], rest, kernel="linear", degree=0, smoothing=_SMOOTHING
        )
        index = np.argwhere(np.ones(grid.shape, bool))[:, ::-1].astype(float)
        points = grid.to_physical(index)
        values = transform_points(alignment, points) - points + spline(points)
        return np.ascontiguousarray(values.T.reshape(3, *grid.shape), dtype=np.float32)

    # --- what came of them --------------------------------------------------------------------

    def summary(self, result: Result, used: int) -> dict:
        """For ``result.json``: how many, and how far (mm) the result leaves them apart."""
        errors = result.landmark_errors(self.fixed, self.moving)
        return {
            "given": len(self),
            "used": used,
            "suspect_rows": (np.flatnonzero(self.suspects) + 1).tolist(),
            "note": "These pairs guided the registration; they do not measure its error.",
            "residual_mm": {name: summarize_errors(e) for name, e in errors.items()},
        }


def rigid_motion(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """The rotation and shift that fit best in least squares, 4x4 (Kabsch 1976); points (N, 3)."""
    centers = fixed.mean(axis=0), moving.mean(axis=0)
    u, _, vt = np.linalg.svd((fixed - centers[0]).T @ (moving - centers[1]))
    sign = np.sign(np.linalg.det(vt.T @ u.T)) or 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = vt.T @ np.diag([1.0, 1.0, sign]) @ u.T
    matrix[:3, 3] = centers[1] - matrix[:3, :3] @ centers[0]
    return matrix


def _affine_motion(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """The affine motion that fits best in least squares, 4x4; points (N, 3), N >= 4."""
    rows = np.column_stack((fixed, np.ones(len(fixed))))
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(rows, moving, rcond=None)[0].T
    return matrix
