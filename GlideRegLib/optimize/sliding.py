"""A regularizer that yields where tissue slides.

The field's grid is a graph whose edges join neighboring nodes. Each edge has a stiffness, 0 to 1,
and both terms of the regularizer are built from the weighted Laplacian L = D^T diag(s) D.

* Between given compartments (lung and chest wall) edges are soft from the start: with s = 0 each
  compartment would be a grid of its own with free borders.
* Everywhere else an edge yields as its two ends slide past each other: s = 1 / (1 + (t / limit)^2)
  with t the part of u(b) - u(a) across the edge, in voxels. That is a robust (Geman-McClure)
  penalty of shear, minimized by reweighting. The part along the edge, which would tear or fold
  tissue, does not soften it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .energy import MEMBRANE
from .warping import pool

#: No edge becomes softer than this: a little stiffness holds both sides where no data do.
SOFTEST = 0.05


@dataclass(frozen=True)
class SoftEdges:
    """``along`` holds the stiffness of the edges along z, y and x: each (Z, Y, X) but one shorter
    along its own axis, 0 to 1."""

    along: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    @classmethod
    def between(cls, labels: torch.Tensor, stiffness: float) -> SoftEdges:
        """Edges between different labels (Z, Y, X) get ``stiffness``, all others 1."""
        along = []
        for dim in range(3):
            n = labels.shape[dim]
            crosses = labels.narrow(dim, 1, n - 1) != labels.narrow(dim, 0, n - 1)
            along.append(torch.where(crosses, stiffness, 1.0).to(torch.float32))
        return cls(tuple(along))

    @classmethod
    def of_shear(cls, displacement: torch.Tensor, limit: float) -> SoftEdges:
        """Edges that yield where ``displacement`` (3, Z, Y, X; voxels, components x, y, z) shears
        by more than ``limit`` voxels from node to node."""
        along = []
        for dim in range(3):
            n = displacement.shape[dim + 1]
            jump = displacement.narrow(dim + 1, 1, n - 1) - displacement.narrow(dim + 1, 0, n - 1)
            across = [jump[i] for i in range(3) if i != 2 - dim]
            shear = across[0].square().addcmul_(across[1], across[1])
            along.append((1 + shear / limit**2).reciprocal_().clamp_min_(SOFTEST))
        return cls(tuple(along))

    def softened_by(self, other: SoftEdges) -> SoftEdges:
        """The product of both, never below :data:`SOFTEST`."""
        products = (a * b for a, b in zip(self.along, other.along, strict=True))
        return SoftEdges(tuple(p.clamp_min_(SOFTEST) for p in products))

    def laplacian(self, values: torch.Tensor) -> torch.Tensor:
        """The weighted graph Laplacian over the last three axes; free borders."""
        out = torch.zeros_like(values)
        for dim, edges in zip((-3, -2, -1), self.along, strict=True):
            n = values.shape[dim]
            step = values.narrow(dim, 1, n - 1) - values.narrow(dim, 0, n - 1)
            step.mul_(edges)
            out.narrow(dim, 1, n - 1).add_(step)
            out.narrow(dim, 0, n - 1).sub_(step)
        return out

    def roughness(self, values: torch.Tensor) -> torch.Tensor:
        """The gradient of half the regularizer, |L u|^2 + MEMBRANE u . L u."""
        bent = self.laplacian(values)
        return self.laplacian(bent.add_(values, alpha=MEMBRANE))

    def diagonal(self) -> torch.Tensor:
        """Diagonal (Z, Y, X) of the matrix that :meth:`roughness` multiplies with."""
        along_z, along_y, along_x = self.along
        shape = (along_y.shape[0], *along_z.shape[1:])
        degree, squares = along_x.new_zeros((2, *shape))
        for dim, edges in enumerate(self.along):
            for start in (0, 1):
                degree.narrow(dim, start, edges.shape[dim]).add_(edges)
                squares.narrow(dim, start, edges.shape[dim]).addcmul_(edges, edges)
        return degree.square().add_(squares).add_(degree, alpha=MEMBRANE)


@dataclass(frozen=True)
class Sliding:
    """Where the field on one level's grid may slide.

    ``limit``: see :meth:`SoftEdges.of_shear`, 0 for no such yielding; ``borders``: edges between
    compartments, if there are any.
    """

    limit: float = 0.0
    borders: SoftEdges | None = None

    def edges(self, displacement: torch.Tensor) -> SoftEdges | None:
        """The edges' stiffness at a displacement (3, Z, Y, X), voxels; None: all 1."""
        if self.limit == 0:
            return self.borders
        edges = SoftEdges.of_shear(displacement, self.limit)
        return edges if self.borders is None else edges.softened_by(self.borders)


def pooled_labels(labels: torch.Tensor, factor: int) -> torch.Tensor:
    """The label that fills most of each block of ``factor``^3 voxels: (Z, Y, X) -> pooled."""
    if factor == 1:
        return labels
    best, most = None, None
    for label in labels.unique().tolist():
        share = pool((labels == label).float()[None], factor)[0]
        if best is None:
            best, most = torch.full_like(share, label, dtype=labels.dtype), share
            continue
        best[share > most] = label
        most = torch.maximum(most, share)
    return best
