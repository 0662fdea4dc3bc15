"""Gauss-Newton on the registration energy, composed with exp(step): the default solver.

Each step solves the normal equations of the linearized energy with preconditioned conjugate
gradients. The gradient is the mean of the fixed and the warped features' (efficient second-order
minimization: a wider basin than the exact derivative). The update u <- u o exp(step) is
diffeomorphic as long as the steps are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .energy import ROUGHNESS_DIAGONAL, FeaturePair, roughness
from .point_term import PointEquations, PointTerm
from .sliding import Sliding, SoftEdges
from .warping import compose, exponentiate, pool, resize_displacement

#: Added to the diagonal of the normal equations (cost per voxel^2), for voxels without structure.
DAMPING = 1e-3
_NO_SLIDING = Sliding()

#: The six entries of a symmetric 3x3 matrix, components x, y, z.
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


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
        for entry, (i, j) in zip(self.matrix, _UPPER, strict=True):
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
        """Conjugate gradients with the diagonal as preconditioner."""
        diagonal = self.matrix[[0, 3, 5]]
        if self.points is not None:
            self.points.add_diagonal(diagonal)
        rough = ROUGHNESS_DIAGONAL if self.edges is None else self.edges.diagonal()
        inverse = (diagonal + self.bending * rough).reciprocal_()
        solution = torch.zeros_like(self.right)
        residual = self.right.clone()
        conjugate = inverse * residual
        direction = conjugate.clone()
        old = first = float((residual * conjugate).sum())
        for _ in range(iterations):
            if old <= tolerance * first:
                break
            check()
            product = self.multiply(direction)
            length = old / max(float((direction * product).sum()), 1e-20)
            solution.add_(direction, alpha=length)
            residual.sub_(product, alpha=length)
            conjugate = inverse * residual
            new = float((residual * conjugate).sum())
            direction.mul_(new / old).add_(conjugate)
            old = new
        return solution


class GaussNewton:
    """Keeps the prepared features of one level; :meth:`step` improves a displacement."""

    def __init__(
        self,
        pairs: list[FeaturePair],
        bending: float,
        weight: torch.Tensor | None = None,
        moving_weight: torch.Tensor | None = None,
        cg_iterations: int = 12,
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
        self._shape = tuple(pairs[0].fixed.shape[1:])
        self._finer = finer
        self._bending = bending
        self._weight = weight
        self._cg_iterations = cg_iterations
        self._max_step = max_step
        self._groups = [
            (pair.weight, _channels_last(pair.fixed), _Table(pair.moving)) for pair in pairs
        ]
        self._moving_weight = None if moving_weight is None else _Table(moving_weight[None])

    def replace(self, group: int, pair: FeaturePair) -> None:
        """Exchanges the features of one group (after the reduction was updated)."""
        self._groups[group] = (pair.weight, _channels_last(pair.fixed), _Table(pair.moving))

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
        """Accumulates the normal equations slab by slab: nothing with C channels is kept."""
        depth = self._shape[0]
        matrix = displacement.new_zeros((6, *displacement.shape[1:]))
        right = displacement.new_zeros((3, *displacement.shape[1:]))
        on_features = displacement
        if self._finer > 1:
            on_features = resize_displacement(displacement, self._shape)
        for start in range(0, depth, _SLAB):
            stop = min(start + _SLAB, depth)
            self._check()
            rows = slice(start // self._finer, stop // self._finer)
            self._add_slab(on_features, start, stop, matrix[:, rows], right[:, rows])
        matrix[[0, 3, 5]] += DAMPING
        edges = self._sliding.edges(displacement)
        rough = roughness if edges is None else edges.roughness
        right.add_(rough(displacement), alpha=self._bending).neg_()
        points = None
        if self._points is not None:
            points = self._points.linearize(displacement)
            points.subtract_right(right)
        return NormalEquations(matrix, right, self._bending, points, edges)

    def _add_slab(
        self,
        displacement: torch.Tensor,
        start: int,
        stop: int,
        matrix: torch.Tensor,
        right: torch.Tensor,
    ) -> None:
        # One slice more on each side, for the central differences along z.
        low, high = max(start - 1, 0), min(stop + 1, self._shape[0])
        shape = (high - low, *self._shape[1:])
        inner = slice(start - low, start - low + stop - start)
        lookup = _Lookup(displacement[:, low:high], low, self._shape)
        trust = lookup.inside[inner]
        if self._weight is not None:
            trust = trust * self._weight[start:stop]
        if self._moving_weight is not None:
            trust = trust * self._moving_weight.sample(lookup).view(shape)[inner]
        matrix, right, whole = self._finer_sums(matrix, right, trust.shape)
        for alpha, fixed, moving in self._groups:
            warped = moving.sample(lookup).view(*shape, -1)
            target = fixed[low:high]
            mean = (warped + target).mul_(0.5)
            gradient = (
                _difference(mean[inner], 2),
                _difference(mean[inner], 1),
                _difference(mean, 0)[inner],
            )
            residual = warped[inner] - target[inner]
            factor = trust * alpha
            for i in range(3):
                right[i].addcmul_(_dot(gradient[i], residual), factor)
            for entry, (i, j) in zip(matrix, _UPPER, strict=True):
                entry.addcmul_(_dot(gradient[i], gradient[j]), factor)
        if whole is not None:
            # A step of one field voxel is `finer` voxels here; each field voxel gets the mean.
            whole[0].add_(pool(matrix, self._finer), alpha=self._finer**2)
            whole[1].add_(pool(right, self._finer), alpha=self._finer)

    def _finer_sums(
        self, matrix: torch.Tensor, right: torch.Tensor, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Where a slab is summed up: in place, or on the features' grid when that is finer."""
        if self._finer == 1:
            return matrix, right, None
        fine = matrix.new_zeros((6, *shape)), right.new_zeros((3, *shape))
        return *fine, (matrix, right)


#: Slices per slab: small enough for the processor's cache, large enough to amortize overheads.
_SLAB = 4


def _channels_last(values: torch.Tensor) -> torch.Tensor:
    return values.permute(1, 2, 3, 0).contiguous()


class _Table:
    """A volume (C, Z, Y, X) as a table of channel vectors, for trilinear look-ups."""

    def __init__(self, values: torch.Tensor) -> None:
        self._rows = values.reshape(values.shape[0], -1).T.contiguous()

    def sample(self, lookup: _Lookup) -> torch.Tensor:
        """Interpolated vectors (N, C). ``embedding_bag`` is twice as fast as ``grid_sample``."""
        return F.embedding_bag(
            lookup.rows,
            self._rows,
            per_sample_weights=lookup.weights.to(self._rows.dtype),
            mode="sum",
        )


class _Lookup:
    """The eight neighbors and weights of x + u(x) for the slices that start at ``first``.

    ``inside`` (Z, Y, X) is 1 where x + u(x) lies within the outer faces of the grid, else 0.
    """

    def __init__(self, displacement: torch.Tensor, first: int, shape: tuple[int, ...]) -> None:
        device = displacement.device
        axes = [torch.arange(n, dtype=torch.float32, device=device) for n in displacement.shape[1:]]
        axes[0] += first
        strides = (shape[1] * shape[2], shape[2], 1)
        row, parts, inside = None, [], None
        for k in range(3):  # array axes z, y, x; the components are x, y, z
            view = [-1 if k == axis else 1 for axis in range(3)]
            position = displacement[2 - k] + axes[k].view(view)
            within = (position >= -0.5) & (position <= shape[k] - 0.5)
            inside = within if inside is None else inside & within
            position = position.clamp_(0, shape[k] - 1)
            lower = position.to(torch.int32).clamp_(max=max(shape[k] - 2, 0))
            upper_share = (position - lower).reshape(-1, 1)
            parts.append(torch.cat((1 - upper_share, upper_share), dim=1))
            offset = lower * strides[k]
            row = offset if row is None else row.add_(offset)
        self.inside = inside.float()
        steps = [
            z * strides[0] * (shape[0] > 1) + y * strides[1] * (shape[1] > 1) + x * (shape[2] > 1)
            for z in (0, 1)
            for y in (0, 1)
            for x in (0, 1)
        ]
        self.rows = row.view(-1, 1) + torch.tensor(steps, dtype=torch.int32, device=device)
        plane = (parts[1][:, :, None] * parts[2][:, None, :]).view(-1, 1, 4)
        self.weights = (parts[0][:, :, None] * plane).view(-1, 8)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of products over the last axis; a matrix-vector product is several times faster than
    ``sum`` over so few channels."""
    channels = a.shape[-1]
    return torch.mv((a * b).view(-1, channels), a.new_ones(channels)).view(a.shape[:-1])


def _difference(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Central difference along ``dim``, one-sided at the ends."""
    n = values.shape[dim]
    out = torch.empty_like(values)
    if n == 1:
        return out.zero_()
    inner = out.narrow(dim, 1, n - 2)
    inner.copy_(values.narrow(dim, 2, n - 2)).sub_(values.narrow(dim, 0, n - 2)).mul_(0.5)
    for edge, low in ((0, 0), (n - 1, n - 2)):
        face = out.narrow(dim, edge, 1)
        face.copy_(values.narrow(dim, low + 1, 1)).sub_(values.narrow(dim, low, 1))
    return out
