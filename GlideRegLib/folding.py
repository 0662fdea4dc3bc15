"""Folds that central differences do not see: between voxels, and between a field's own nodes.

Linear interpolation between nodes is a map of its own in every cell. At a node eight cells meet,
and the determinants there are those of the eight combinations of one-sided differences. Central
differences give their mean (the determinant is linear in each column), so that a fold in one cell,
or a field that jumps to and fro from node to node, can look like no deformation at all.

Source: Liu et al., On finite difference Jacobian computation in deformable image registration, Int
J Comput Vis 132, 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from .field import DisplacementField, linear_matrix, sample_transform, transform_parts
from .geometry import Grid, transform_points

if TYPE_CHECKING:
    import SimpleITK

#: Slices that are looked at together, and voxels whose eight determinants are computed at once.
_SLAB, _CHUNK = 8, 200_000


def folded_voxels(
    vectors: torch.Tensor, grid: Grid, limit: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Where a displacement (3, Z, Y, X) in LPS mm on ``grid`` folds: flat indices (N,) of voxels
    with a determinant of one-sided differences of ``limit`` or less, and the lowest of their eight
    (N,). All those of 0 or less are found; with a limit above 0 nearly all between 0 and it.

    Values that are not finite are no folds: whoever counts looks for them first.
    """
    depth = vectors.shape[1]
    layer = vectors.shape[2] * vectors.shape[3]
    places, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        low, high = max(start - 1, 0), min(stop + 1, depth)
        voxels = grid.mm_to_voxels(vectors[:, low:high])
        steps = _steps(voxels)
        suspects = _suspects(steps, voxels.shape[1:])[start - low : stop - low].nonzero()
        for part in suspects.split(_CHUNK):
            lowest = _lowest_determinant(steps, part + part.new_tensor((start - low, 0, 0)))
            z, y, x = part[lowest <= limit].T
            places.append(((z + start) * layer + y * vectors.shape[3] + x).cpu().numpy())
            values.append(lowest[lowest <= limit].cpu().numpy())
    return np.concatenate(places), np.concatenate(values)


def _steps(voxels: torch.Tensor) -> list[torch.Tensor]:
    """Differences (3, Z, Y, X) from each voxel to the next one, along x, y and z; zero along an
    axis with one voxel only."""
    steps = [voxels.diff(dim=dim) for dim in (3, 2, 1)]
    return [step if step.numel() else torch.zeros_like(voxels) for step in steps]


def _suspects(steps: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """Voxels (Z, Y, X), bool, that may fold. Where the sum of the squares of all derivatives is
    below 1, the identity outweighs them, and the determinant is positive: most voxels of most
    fields need no determinant."""
    total = steps[0].new_zeros(shape)
    for step, dim in zip(steps, (2, 1, 0), strict=True):
        square = step.square().sum(0)
        n = square.shape[dim]
        largest = torch.zeros_like(total)
        largest.narrow(dim, 0, n).copy_(square)
        if n < shape[dim]:
            behind = largest.narrow(dim, 1, n)
            torch.maximum(behind, square, out=behind)
        total += largest
    return total >= 1


def _lowest_determinant(steps: list[torch.Tensor], index: torch.Tensor) -> torch.Tensor:
    """The lowest of the eight determinants (N,) at voxels with indices (N, 3), z y x. At a face
    there is one step only along an axis."""
    columns = []
    for axis, step in enumerate(steps):
        unit = torch.eye(3, device=step.device)[axis][:, None]
        sides = []
        for shift in (-1, 0):
            at = list(index.T)
            at[2 - axis] = (at[2 - axis] + shift).clamp(0, step.shape[3 - axis] - 1)
            z, y, x = at
            sides.append(step[:, z, y, x] + unit)
        columns.append(sides)
    lowest = steps[0].new_full((len(index),), torch.inf)
    for b, c in product(*columns[1:]):
        normal = torch.linalg.cross(b, c, dim=0)
        for a in columns[0]:
            torch.minimum(lowest, (a * normal).sum(0), out=lowest)
    return lowest


# --- the field's own nodes ----------------------------------------------------------------------


@dataclass(frozen=True)
class OwnNodes:
    """The nodes of the displacement field that points meet first, at most after linear parts.

    ``before`` (4x4, LPS mm) is what those do; behind it lies ``grid``. ``sample`` gives the
    displacement (3, Z, Y, X) in LPS mm of the field, with all that follows, on a part of ``grid``.
    """

    before: np.ndarray
    grid: Grid
    sample: Callable[[Grid], torch.Tensor]


def own_nodes(transform: SimpleITK.Transform) -> OwnNodes | None:
    """The nodes of a transform's first displacement field; None when a point meets something else
    first that is not linear, or no field at all."""
    import SimpleITK as sitk

    parts, before = transform_parts(transform), np.eye(4)
    while parts and parts[0].IsLinear():
        before = linear_matrix(parts.pop(0)) @ before
    if not parts or parts[0].GetName() != "DisplacementFieldTransform":
        return None
    image = sitk.DisplacementFieldTransform(parts[0]).GetDisplacementField()
    rest = parts[0] if len(parts) == 1 else sitk.CompositeTransform(parts[::-1])
    return OwnNodes(
        before, Grid.from_sitk(image), lambda part: sample_transform(rest, part).vectors
    )


def folds_of(transform: SimpleITK.Transform, field: DisplacementField) -> np.ndarray:
    """Voxels in which a transform folds, bool (Z, Y, X): at the voxels of an image, on whose grid
    ``field`` is what it does, and at its own nodes over that image."""
    folded = np.zeros(field.grid.shape, bool)
    folded.reshape(-1)[folded_voxels(field.vectors, field.grid)[0]] = True
    nodes = own_nodes(transform)
    if nodes is not None:
        folded.reshape(-1)[folded_nodes(nodes, field.grid)[0]] = True
    return folded


def folded_nodes(nodes: OwnNodes, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Folds at a field's own nodes over an image with ``grid``: flat indices (N,) of the voxels in
    which folded nodes lie, some twice, and the lowest determinants there (N,)."""
    places, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    factor = float(np.linalg.det(nodes.before[:3, :3]))
    same = nodes.grid.is_close(grid) and np.allclose(nodes.before, np.eye(4))
    part = _over(nodes, grid)
    if same or factor <= 0 or part is None:  # the image's own voxels have told everything already
        return places[0], values[0]
    back = np.linalg.inv(nodes.before)
    depth, size = part.size[2], np.asarray(grid.size)
    for start in range(0, depth, 3 * _SLAB):
        low, high = max(start - 1, 0), min(start + 3 * _SLAB + 1, depth)
        slab = part.padded((0, 0, -low), (0, 0, high - depth))
        flat, lowest = folded_voxels(nodes.sample(slab), slab)
        z, y, x = np.unravel_index(flat, slab.shape)
        # The slices of the neighbors that were read along belong to the slabs beside this one.
        own = (z + low >= start) & (z + low < start + 3 * _SLAB)
        index = np.stack((x, y, z), axis=1)[own].astype(float)
        place = grid.to_index(transform_points(back, slab.to_physical(index)))
        voxel = np.rint(place).astype(np.int64)
        inside = ((voxel >= 0) & (voxel < size)).all(axis=1)
        x, y, z = voxel[inside].T
        places.append((z * size[1] + y) * size[0] + x)
        values.append(factor * lowest[own][inside])
    return np.concatenate(places), np.concatenate(values).astype(np.float32)


def _over(nodes: OwnNodes, grid: Grid) -> Grid | None:
    """The part of the nodes that covers an image, with one more layer; None without any."""
    index = nodes.grid.to_index(transform_points(nodes.before, grid.corners()))
    last = np.asarray(nodes.grid.size) - 1
    lower = np.clip(np.floor(index.min(axis=0)) - 1, 0, None).astype(int)
    upper = np.clip(last - np.ceil(index.max(axis=0)) - 1, 0, None).astype(int)
    if (lower + upper > last).any():
        return None
    return nodes.grid.padded(tuple(-lower), tuple(-upper))
