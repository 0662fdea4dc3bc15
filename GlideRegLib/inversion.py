"""The numerical inverse of a displacement: v with v(q) + u(q + v(q)) = 0.

Everything is in voxels of one lattice, components x, y, z; u is linear between nodes and zero
outside the outer faces. Plain fixed-point steps diverge where tissue expands a lot, so both ways
below correct them with a gradient:

* the whole lattice at once, from coarse to fine, with the gradient of the inverse itself
  (I + Dv is the inverse of I + Du): sampling three channels is all that a step costs;
* single points, with damped Newton steps: what the first way left open, and points off the nodes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .optimize.warping import resize_displacement

#: Slices per slab: what a step needs besides the fields then stays in the processor's cache.
_SLAB = 8
#: Points that are inverted at once by Newton steps.
_CHUNK = 100_000
#: Steps over the whole lattice before the points that are still open are taken one by one.
_PASSES = 3
#: Longest step, voxels.
_LONGEST = 2.0
#: Lattices smaller than this along an axis are not coarsened further.
_SMALLEST = 32


def invert_lattice(u: torch.Tensor, limit: float) -> torch.Tensor:
    """v (3, Z, Y, X) at every node; |v + u(q + v)| is at most ``limit`` voxels wherever it can."""
    v = _coarse_to_fine(u)
    open_nodes = _refine(u, v, limit, _PASSES)
    if len(open_nodes):
        nodes = node_index(open_nodes, u.shape[1:])
        flat = v.view(3, -1)
        flat[:, open_nodes] = invert_points(u, nodes, limit, flat[:, open_nodes])
    return v


def node_index(flat: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Index coordinates (3, N) float32, x y z, of the nodes of a lattice (Z, Y, X) with the flat
    numbers (N,). ``torch.unravel_index`` would import sympy: 0.3 s and 40 MB."""
    _, height, width = shape
    rows = flat // width
    return torch.stack((flat % width, rows % height, rows // height)).float()


def invert_points(
    u: torch.Tensor,
    index: torch.Tensor,
    limit: float,
    start: torch.Tensor | None = None,
    iterations: int = 30,
) -> torch.Tensor:
    """v (3, N) at continuous indices (3, N), by damped Newton steps from ``start`` (3, N)."""
    field = _Cells(u)
    del u  # the caller may not need it any more either
    starts = [None] * len(index[0].split(_CHUNK)) if start is None else start.split(_CHUNK, dim=1)
    parts = [
        _newton(field, points, first, limit, iterations)
        for points, first in zip(index.split(_CHUNK, dim=1), starts, strict=True)
    ]
    return torch.cat(parts, dim=1)


# --- the whole lattice ----------------------------------------------------------------------------


def _coarse_to_fine(u: torch.Tensor) -> torch.Tensor:
    """A first inverse: that of the same motion on half as many nodes along each axis."""
    shape = tuple(u.shape[1:])
    if min(shape) < _SMALLEST:
        return -u
    half = tuple((n + 1) // 2 for n in shape)
    coarse_u = resize_displacement(u, half)
    coarse = _coarse_to_fine(coarse_u)
    _refine(coarse_u, coarse, 0.0, _PASSES)
    return resize_displacement(coarse, shape)


def _refine(u: torch.Tensor, v: torch.Tensor, limit: float, passes: int) -> torch.Tensor:
    """Improves ``v`` in place, slab by slab; returns the flat indices of the nodes whose residual
    was above ``limit`` (voxels) in the last pass."""
    depth, height, width = u.shape[1:]
    ends_in_zeros = not any(u.select(dim, k).any() for dim in (1, 2, 3) for k in (0, -1))
    found = []
    for number in range(passes):
        for low in range(0, depth, _SLAB):
            high = min(low + _SLAB, depth)
            part = v[:, low:high]
            residual = _sample_slab(u, part, low, ends_in_zeros).add_(part)
            error = residual.square().sum(dim=0).sqrt_()
            step = _times_gradient(v, low, high, residual).add_(residual)
            length = step.square().sum(dim=0).sqrt_()
            # No longer than the residual justifies: near folds the gradient of v is meaningless.
            longest = (3 * error).clamp_max_(_LONGEST)
            step.mul_((longest / length.clamp_min_(1e-9)).clamp_max_(1.0).mul_(error > limit))
            part.sub_(step)
            if number == passes - 1:
                found.append(torch.nonzero(error.view(-1) > limit)[:, 0] + low * height * width)
    return torch.cat(found)


def _sample_slab(
    u: torch.Tensor, part: torch.Tensor, low: int, ends_in_zeros: bool
) -> torch.Tensor:
    """u(q + v(q)) for the slices of ``part`` (3, z, Y, X), the first of which is number ``low``."""
    coordinates = torch.empty_like(part)
    for k in range(3):
        size = u.shape[3 - k]
        axis = torch.arange(part.shape[3 - k], dtype=u.dtype) + (low if k == 2 else 0)
        view = [-1 if k == 2 - dim else 1 for dim in range(3)]
        base = ((axis * 2 + 1) / size - 1).view(view)
        torch.add(base, part[k], alpha=2 / size, out=coordinates[k])
    values = F.grid_sample(
        u[None],
        coordinates.permute(1, 2, 3, 0)[None],
        padding_mode="border",
        align_corners=False,
    )[0]
    return values if ends_in_zeros else values.mul_((coordinates.abs() <= 1).all(dim=0))


def _times_gradient(v: torch.Tensor, low: int, high: int, vector: torch.Tensor) -> torch.Tensor:
    """Dv times ``vector`` (3, z, Y, X) for the slices from ``low`` to ``high``."""
    first, last = max(low - 1, 0), min(high + 1, v.shape[1])
    around = v[:, first:last]
    out = torch.zeros_like(vector)
    for axis in range(3):
        gradient = difference(around, axis)[:, low - first : high - first]
        out.addcmul_(gradient, vector[axis : axis + 1])
    return out


def difference(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Derivative along index axis x=0, y=1, z=2: central inside, one-sided at the faces."""
    dim = values.dim() - 1 - axis
    n = values.shape[dim]
    if n == 1:
        return torch.zeros_like(values)
    out = torch.empty_like(values)
    inner = out.narrow(dim, 1, n - 2)
    torch.sub(values.narrow(dim, 2, n - 2), values.narrow(dim, 0, n - 2), out=inner).mul_(0.5)
    for edge, below in ((0, 0), (n - 1, n - 2)):
        face = out.narrow(dim, edge, 1)
        torch.sub(values.narrow(dim, below + 1, 1), values.narrow(dim, below, 1), out=face)
    return out


# --- single points --------------------------------------------------------------------------------


class _Cells:
    """u and its exact gradient within the cells of the lattice, at any points."""

    def __init__(self, u: torch.Tensor) -> None:
        self._shape = tuple(u.shape[1:])
        self._rows = u.reshape(3, -1).T.contiguous()
        z, y, x = ((0, stride) if n > 1 else (0, 0) for n, stride in self._strides())
        self._steps = torch.tensor([a + b + c for a in z for b in y for c in x])

    def _strides(self) -> list[tuple[int, int]]:
        _, height, width = self._shape
        return list(zip(self._shape, (height * width, width, 1), strict=True))

    def sample(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """u (N, 3) and du_i/dx_j (N, 3, 3), zero outside, at continuous indices (3, N) x y z."""
        count = index.shape[1]
        row = torch.zeros(count, dtype=torch.long)
        inside = torch.ones(count, dtype=torch.bool)
        shares = []
        for position, (n, stride) in zip(index.flip(0), self._strides(), strict=True):
            inside &= (position >= -0.5) & (position <= n - 0.5)
            position = position.clamp(0, n - 1)
            lower = position.long().clamp_(max=max(n - 2, 0))
            shares.append((position - lower).view(-1, 1))
            row += lower * stride
        corners = self._rows[row.view(-1, 1) + self._steps].view(count, 2, 2, 2, 3)
        corners = corners * inside.view(-1, 1, 1, 1, 1)
        fz, fy, fx = shares
        dz = corners[:, 1] - corners[:, 0]
        plane = torch.addcmul(corners[:, 0], dz, fz.view(-1, 1, 1, 1))
        dz = dz[:, 0] + (dz[:, 1] - dz[:, 0]) * fy.view(-1, 1, 1)
        dz = dz[:, 0] + (dz[:, 1] - dz[:, 0]) * fx
        dy = plane[:, 1] - plane[:, 0]
        line = torch.addcmul(plane[:, 0], dy, fy.view(-1, 1, 1))
        dy = dy[:, 0] + (dy[:, 1] - dy[:, 0]) * fx
        dx = line[:, 1] - line[:, 0]
        return torch.addcmul(line[:, 0], dx, fx), torch.stack((dx, dy, dz), dim=2)


def _newton(
    field: _Cells,
    points: torch.Tensor,
    start: torch.Tensor | None,
    limit: float,
    iterations: int,
) -> torch.Tensor:
    """The best v (3, N) found for ``points`` (3, N), continuous indices."""
    here = -field.sample(points)[0].T if start is None else start
    best = here.clone()
    best_error = torch.full((points.shape[1],), math.inf)
    active = torch.arange(points.shape[1])
    scale = torch.ones(points.shape[1])
    for _ in range(iterations):
        value, gradient = field.sample(points[:, active] + here)
        residual = here + value.T
        error = residual.square().sum(dim=0).sqrt()
        better = error < best_error[active]
        best_error[active[better]] = error[better]
        best[:, active[better]] = here[:, better]
        # A step that made it worse is taken back and tried again with half its length.
        scale = torch.where(better, (scale * 2).clamp_max(1), scale * 0.5)
        open_ = best_error[active] > limit
        if not open_.any():
            break
        active, here, scale = active[open_], here[:, open_], scale[open_]
        newton = _solve3(gradient[open_] + torch.eye(3), residual[:, open_])
        length = newton.square().sum(dim=0).sqrt().clamp_min(1e-9)
        newton *= (_LONGEST / length).clamp_max(1.0) * scale
        here = torch.where(better[open_], here, best[:, active]) - newton
    return best


def _solve3(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solves N 3x3 systems (N, 3, 3) for right sides (3, N); singular ones are regularized."""
    determinant = torch.linalg.det(matrix)
    near = determinant.abs() < 0.02
    matrix = torch.where(near[:, None, None], matrix + 0.3 * torch.eye(3), matrix)
    return torch.linalg.solve(matrix, right.T[..., None])[..., 0].T
