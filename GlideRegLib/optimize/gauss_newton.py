"""Gauss-Newton on the registration energy, composed with exp(step): the default solver.

Each step solves the normal equations of the linearized energy with preconditioned conjugate
gradients. The gradient is the mean of the fixed and the warped features' (efficient second-order
minimization: a wider basin than the exact derivative). The update u <- u o exp(step) is
diffeomorphic as long as the steps are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .data_term import DataTerm
from .energy import FeaturePair, roughness
from .normal_equations import NormalEquations
from .point_term import PointTerm
from .sliding import Sliding
from .warping import compose, exponentiate

#: Added to the diagonal of the normal equations (cost per voxel^2), for voxels without structure.
DAMPING = 1e-3
_NO_SLIDING = Sliding()


class GaussNewton:
    """Keeps the prepared features of one level; :meth:`step` improves a displacement."""

    def __init__(
        self,
        pairs: list[FeaturePair],
        bending: float,
        weight: torch.Tensor | None = None,
        moving_weight: torch.Tensor | None = None,
        cg_iterations: int = 8,
        max_step: float = 1.5,
        check: Callable[[], None] = lambda: None,
        points: PointTerm | None = None,
        finer: int = 1,
        sliding: Sliding = _NO_SLIDING,
    ) -> None:
        """``weight`` (Z, Y, X): trust in each fixed voxel; ``moving_weight``: the same for the
        moving grid, sampled at x + u. ``bending`` is lambda on this grid; ``max_step`` (voxels)
        limits a single update; ``check`` is called between slabs and may raise to cancel;
        ``points``: landmark pairs that pull. ``finer``: how many times finer the features' grid is
        than the field's, along each axis; the field and all that concerns it are then in voxels of
        the coarser grid, ``weight`` and ``moving_weight`` on the finer one. ``sliding``: where
        the regularizer yields."""
        self._check = check
        self._points = points
        self._sliding = sliding
        self._finer = finer
        self._bending = bending
        self._cg_iterations = cg_iterations
        self._max_step = max_step
        self._data = DataTerm(pairs, weight, moving_weight, finer, check)

    def replace(self, group: int, pair: FeaturePair) -> None:
        """Exchanges the features of one group (after the reduction was updated)."""
        self._data.replace(group, pair)

    @torch.no_grad()
    def step(self, displacement: torch.Tensor) -> tuple[torch.Tensor, float]:
        """One update. Returns the new displacement and the mean length of the step (voxels)."""
        equations = self._assemble(displacement)
        update = equations.solve(self._cg_iterations, check=self._check)
        length = update.square().sum(dim=0, keepdim=True).sqrt_()
        update.mul_((self._max_step / length.clamp_min(1e-9)).clamp_max_(1.0))
        mean_length = float(length.clamp_max(self._max_step).mean())
        return compose(displacement, exponentiate(update)), mean_length

    def _assemble(self, displacement: torch.Tensor) -> NormalEquations:
        """The normal equations of a step from a displacement."""
        matrix, right = self._data.sums(displacement)
        matrix[[0, 3, 5]] += DAMPING
        edges = self._sliding.edges(displacement)
        rough = roughness if edges is None else edges.roughness
        right.add_(rough(displacement), alpha=self._bending).neg_()
        points = None
        if self._points is not None:
            points = self._points.linearize(displacement)
            points.subtract_right(right)
        return NormalEquations(matrix, right, self._bending, points, edges)
