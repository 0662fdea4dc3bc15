"""The normal equations of a Gauss-Newton step, and the conjugate gradients that solve them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .data_term import UPPER
from .energy import BENDING_DIAGONAL, MEMBRANE_DIAGONAL, roughness
from .point_term import PointEquations
from .sliding import SoftEdges
from .warping import doubled, pool, summed_by_two

#: Grids twice and four times as coarse take part in the preconditioner. One more brought the
#: smoothest motion nearer and the rest no faster.
_COARSER = 2
#: No coarser grid than this along an axis.
_SMALLEST = 4


@dataclass
class NormalEquations:
    """A z + lambda roughness z = right, with A (6, Z, Y, X) per voxel and right (3, Z, Y, X).

    ``points`` add what landmark pairs say about z between the voxels; ``edges`` make the roughness
    weak where tissue slides.
    """

    matrix: torch.Tensor
    right: torch.Tensor
    bending: float
    points: PointEquations | None = None
    edges: SoftEdges | None = None

    def multiply(self, z: torch.Tensor) -> torch.Tensor:
        rough = roughness(z) if self.edges is None else self.edges.roughness(z)
        out = rough.mul_(self.bending)
        for entry, (i, j) in zip(self.matrix, UPPER, strict=True):
            out[i].addcmul_(entry, z[j])
            if i != j:
                out[j].addcmul_(entry, z[i])
        if self.points is not None:
            self.points.multiply_add(z, out)
        return out

    def solve(
        self,
        iterations: int,
        tolerance: float = 1e-4,
        check: Callable[[], None] = lambda: None,
    ) -> torch.Tensor:
        """Preconditioned conjugate gradients."""
        diagonal = self.matrix[[0, 3, 5]]
        if self.points is not None:
            self.points.add_diagonal(diagonal)
        preconditioner = _Preconditioner(diagonal, self.bending, self.edges)
        solution = torch.zeros_like(self.right)
        residual = self.right.clone()
        conjugate = preconditioner.apply(residual)
        direction = conjugate.clone()
        old = first = _dot(residual, conjugate)
        for _ in range(iterations):
            if old <= tolerance * first:
                break
            check()
            product = self.multiply(direction)
            length = old / max(_dot(direction, product), 1e-20)
            solution.add_(direction, alpha=length)
            residual.sub_(product, alpha=length)
            conjugate = preconditioner.apply(residual)
            new = _dot(residual, conjugate)
            direction.mul_(new / old).add_(conjugate)
            old = new
        return solution


class _Preconditioner:
    """Diagonal scaling on this grid and on coarser ones, added up (Bramble, Pasciak and Xu,
    "Parallel multilevel preconditioners", 1990): smooth motion settles in a few steps, not dozens.
    """

    def __init__(
        self, diagonal: torch.Tensor, bending: float, edges: SoftEdges | None = None
    ) -> None:
        """``diagonal`` (3, Z, Y, X) of the data terms; the regularizer's is added, where ``edges``
        are soft its share of what it is elsewhere."""
        stiffness = torch.ones((1, 1, 1, 1), device=diagonal.device)
        if edges is not None:
            stiffness = edges.diagonal()[None] / _rough_diagonal(1)
        rough = bending * stiffness
        self._scales = [(diagonal + rough * _rough_diagonal(1)).reciprocal_()]
        for level in range(1, _COARSER + 1):
            shape = diagonal.shape[1:]
            if any(n % 2 or n < 2 * _SMALLEST for n in shape):
                break
            diagonal = pool(diagonal, 2)
            rough = rough if edges is None else pool(rough, 2)
            # A coarse node stands for 8^level voxels.
            whole = (diagonal + rough * _rough_diagonal(2**level)).mul_(8**level)
            self._scales.append(whole.reciprocal_())

    def apply(self, residual: torch.Tensor) -> torch.Tensor:
        """About the solution z of (A + lambda B) z = residual; symmetric and positive definite."""
        return self._from(0, residual)

    def _from(self, level: int, residual: torch.Tensor) -> torch.Tensor:
        found = self._scales[level] * residual
        if level + 1 < len(self._scales):
            found.add_(doubled(self._from(level + 1, summed_by_two(residual))))
        return found


def _rough_diagonal(factor: int) -> float:
    """Diagonal entry of the regularizer on a grid coarser by ``factor``, for displacements that
    keep the unit of the fine grid."""
    return BENDING_DIAGONAL / factor**4 + MEMBRANE_DIAGONAL / factor**2


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.dot(a.view(-1), b.view(-1)))
