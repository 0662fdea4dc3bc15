"""Displacement fields in patient space, and their passage to and from ITK.

A field u maps a fixed point p to p + u(p) in the moving image (ITK's resampling direction), in LPS
mm. The optimizer works in voxels of its own grid (``optimize/warping.py``); the two meet here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import InputError
from .geometry import Grid, normalized_coordinates
from .volume import first_sentence

if TYPE_CHECKING:
    import SimpleITK


@dataclass(frozen=True)
class DisplacementField:
    """Displacement vectors in LPS mm on a grid.

    ``vectors`` is float32 (3, Z, Y, X), components x, y, z. Between nodes the field is linear; it
    is zero outside the outer faces of its grid, as in ITK.
    """

    vectors: torch.Tensor
    grid: Grid

    @classmethod
    def zeros(cls, grid: Grid) -> DisplacementField:
        """The identity on a grid."""
        return cls(torch.zeros(3, *grid.shape), grid)

    @classmethod
    def from_voxels(cls, displacement: torch.Tensor, grid: Grid) -> DisplacementField:
        """From a displacement (3, Z, Y, X) in voxels of ``grid``."""
        return cls(grid.voxels_to_mm(displacement.float()).cpu(), grid)

    def to_voxels(self) -> torch.Tensor:
        """The displacement (3, Z, Y, X) in voxels of the field's own grid."""
        return self.grid.mm_to_voxels(self.vectors)

    # --- evaluation ---------------------------------------------------------------------------

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Displacement in LPS mm at LPS points (N, 3): (N, 3)."""
        index = torch.as_tensor(self.grid.to_index(points).T, dtype=torch.float64)
        return self._sample_index(index.reshape(3, -1, 1, 1)).reshape(3, -1).T.numpy()

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """p + u(p) for LPS points (N, 3)."""
        return np.asarray(points, dtype=float) + self.sample(points)

    def sample_grid(self, grid: Grid, displaced: torch.Tensor | None = None) -> torch.Tensor:
        """u at every voxel of ``grid`` (moved by ``displaced``, LPS mm, first): (3, Z, Y, X) mm."""
        index = self.grid.index_of(grid)
        if displaced is not None:
            index += self.grid.mm_to_voxels(displaced)
        return self._sample_index(index)

    def resampled(self, grid: Grid) -> DisplacementField:
        """The same field, linearly interpolated on another grid."""
        return DisplacementField(self.sample_grid(grid), grid)

    def _sample_index(self, index: torch.Tensor) -> torch.Tensor:
        """Values at continuous indices (3, Z, Y, X) of the field's own grid."""
        values = self.grid.sample(self.vectors.to(index.dtype), index)
        coordinates = normalized_coordinates(index, self.grid.shape)
        inside = (coordinates.abs() <= 1).all(dim=-1)
        return values * inside

    # --- algebra ------------------------------------------------------------------------------

    def compose(self, first: DisplacementField) -> DisplacementField:
        """The field of (Id + self) after (Id + first): p -> p + first(p) + self(p + first(p)).

        A fixed point goes through ``first`` first. The result lives on the grid of ``first``.
        """
        return DisplacementField(
            first.vectors + self.sample_grid(first.grid, first.vectors), first.grid
        )

    def inverse(self) -> DisplacementField:
        """Numerical inverse v on the same grid: q + v(q) + u(q + v(q)) = q at every node.

        Between nodes the inverse is interpolated; :meth:`inverse_points` is exact everywhere.
        Where the field folds it has no inverse; :meth:`inverse_residual` tells.
        """
        index = self.grid.index_tensor().reshape(3, -1)
        inverse = self._invert_at(index).reshape(3, *self.grid.shape)
        return DisplacementField(self.grid.voxels_to_mm(inverse), self.grid)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """The LPS points p (N, 3) with p + u(p) = q, for LPS points q (N, 3)."""
        index = torch.as_tensor(self.grid.to_index(points).T, dtype=torch.float32)
        found = index + self._invert_at(index)
        return self.grid.to_physical(found.T.double().numpy())

    def _invert_at(
        self, index: torch.Tensor, tolerance: float = 1e-3, iterations: int = 30
    ) -> torch.Tensor:
        """v (3, N) in voxels with v + u(q + v) = 0 at continuous indices q (3, N).

        Damped Newton steps with the local gradient of u until ``tolerance`` mm; plain fixed-point
        iteration would diverge where tissue expands a lot. In chunks, to bound the memory.
        """
        to_voxels = torch.as_tensor(np.linalg.inv(self.grid.matrix[:3, :3]), dtype=torch.float32)
        gradient = gradient_along_index(self.vectors)
        gradient = torch.einsum("ij,jazyx->iazyx", to_voxels, gradient)
        u = self.to_voxels()
        values = torch.cat((u, gradient.reshape(9, *self.grid.shape)))
        limit = tolerance / max(self.grid.spacing)
        parts = [
            _invert_chunk(self.grid, values, part, limit, iterations)
            for part in index.split(_INVERSE_CHUNK, dim=1)
        ]
        return torch.cat(parts, dim=1)

    def inverse_residual(self, inverse: DisplacementField) -> torch.Tensor:
        """|(Id + self)(q + v(q)) - q| in mm at every node of the inverse's grid: (Z, Y, X)."""
        residual = inverse.vectors + self.sample_grid(inverse.grid, inverse.vectors)
        return residual.square().sum(0).sqrt()

    def jacobian_determinant(self) -> torch.Tensor:
        """det(I + du/dx) at every node (Z, Y, X), by central differences (one-sided at faces)."""
        return jacobian_determinant(self.vectors, self.grid)

    def with_zero_border(
        self, cover: Grid | None = None, limit_mm: float = math.inf
    ) -> DisplacementField:
        """The field on an extended lattice that ends in zeros.

        ITK takes zero outside a field's grid, VTK the nearest edge vector: with a zero border both
        agree, and nothing jumps. Beyond the original grid the edge vectors fade to zero over a
        distance of pi times the largest of them, which keeps the determinant above 0.5 there; at
        most over ``limit_mm``, for fields whose edges move a lot (they may then fold out there).
        The lattice also grows until it covers ``cover``.
        """
        edge = _faces(self.vectors).square().sum(0).amax().sqrt().item()
        distance = min(math.pi * edge, limit_mm)
        margin = max(4, math.ceil(distance / min(self.grid.spacing)) + 1)
        lower, upper = [margin] * 3, [margin] * 3
        if cover is not None:
            index = self.grid.to_index(cover.corners())
            for axis in range(3):
                lower[axis] = max(margin, math.ceil(-index[:, axis].min()) + 1)
                behind = index[:, axis].max() - (self.grid.size[axis] - 1)
                upper[axis] = max(margin, math.ceil(behind) + 1)
        grid = self.grid.padded(tuple(lower), tuple(upper))
        pad = [n for axis in range(3) for n in (lower[axis], upper[axis])]
        vectors = torch.nn.functional.pad(self.vectors[None], pad, mode="replicate")[0]
        for axis in range(3):
            window = _fade(self.grid.size[axis], lower[axis], upper[axis], margin)
            view = [1, 1, 1, 1]
            view[3 - axis] = -1
            vectors = vectors * window.view(view)
        return DisplacementField(vectors, grid)

    # --- ITK ----------------------------------------------------------------------------------

    def to_sitk(self) -> SimpleITK.Image:
        """As an ITK vector image (LPS mm, fixed to moving)."""
        import SimpleITK as sitk

        array = np.ascontiguousarray(self.vectors.permute(1, 2, 3, 0).double().numpy())
        return self.grid.copy_to_sitk(sitk.GetImageFromArray(array, isVector=True))

    def to_sitk_transform(self) -> SimpleITK.Transform:
        """As an ITK displacement field transform with linear interpolation."""
        import SimpleITK as sitk

        return sitk.DisplacementFieldTransform(self.to_sitk())

    @classmethod
    def from_sitk(cls, image: SimpleITK.Image) -> DisplacementField:
        """From an ITK vector image (LPS mm, fixed to moving). Raises InputError otherwise."""
        import SimpleITK as sitk

        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
            raise InputError(
                f"A displacement field is a 3-D image with 3 values per voxel, not "
                f"{image.GetDimension()}-D with {image.GetNumberOfComponentsPerPixel()}."
            )
        array = sitk.GetArrayFromImage(image).astype(np.float32)
        vectors = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))
        return cls(vectors, Grid.from_sitk(image))


def jacobian_determinant(vectors: torch.Tensor, grid: Grid) -> torch.Tensor:
    """det(I + du/dx) of a displacement (3, Z, Y, X) in LPS mm on ``grid``: (Z, Y, X).

    Central differences, one-sided at the faces, as numpy.gradient; 1 means no volume change, at
    most 0 means folding.
    """
    inverse = torch.as_tensor(np.linalg.inv(grid.matrix[:3, :3]), dtype=vectors.dtype)
    gradient = torch.einsum("iazyx,aj->ijzyx", gradient_along_index(vectors), inverse)
    a, b, c = gradient[0, 0] + 1, gradient[0, 1], gradient[0, 2]
    d, e, f = gradient[1, 0], gradient[1, 1] + 1, gradient[1, 2]
    g, h, i = gradient[2, 0], gradient[2, 1], gradient[2, 2] + 1
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def gradient_along_index(vectors: torch.Tensor) -> torch.Tensor:
    """Derivatives of (3, Z, Y, X) along the index axes: (3 components, 3 axes x y z, Z, Y, X)."""
    return torch.stack([_difference(vectors, axis) for axis in range(3)], dim=1)


def affine_to_sitk(matrix: np.ndarray) -> SimpleITK.AffineTransform:
    """A 4x4 LPS mm matrix as an ITK affine transform."""
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def linear_matrix(transform: SimpleITK.Transform) -> np.ndarray:
    """The 4x4 LPS mm matrix of any linear ITK transform. Raises InputError for others."""
    if not transform.IsLinear():
        raise InputError("The initial transform is not linear; give a rigid or affine transform.")
    matrix = np.eye(4)
    origin = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix[:3, 3] = origin
    for axis in range(3):
        unit = [0.0, 0.0, 0.0]
        unit[axis] = 1.0
        matrix[:3, axis] = np.asarray(transform.TransformPoint(unit)) - origin
    return matrix


def read_transform(path: str | Path) -> SimpleITK.Transform:
    """Reads an ITK transform (.h5, .tfm, .txt, .mat) or a displacement field image.

    The result maps fixed LPS points to moving LPS points. Raises :class:`InputError` with one
    sentence when the file is missing, damaged, not 3-D or neither of both.
    """
    import SimpleITK as sitk

    path = Path(path)
    if not path.is_file():
        raise InputError(f"The transform '{path}' does not exist; check the path.")
    is_transform = path.suffix.lower() in {".h5", ".hdf5", ".hdf", ".tfm", ".txt", ".mat", ".xfm"}
    try:
        if is_transform:
            transform = sitk.ReadTransform(str(path))
        else:
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"'{path}' cannot be read as a transform ({first_sentence(error)}); "
            "give an ITK transform (.h5, .tfm) or a displacement field (.nii.gz, .nrrd, .mha)."
        ) from error
    if is_transform:
        if transform.GetDimension() != 3:
            raise InputError(f"The transform '{path}' is {transform.GetDimension()}-D, not 3-D.")
        return transform
    return DisplacementField.from_sitk(image).to_sitk_transform()


def transform_points(transform: SimpleITK.Transform, points: np.ndarray) -> np.ndarray:
    """Applies an ITK transform to LPS points (N, 3)."""
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    moved = [transform.TransformPoint(p) for p in points.tolist()]
    return np.asarray(moved, dtype=float).reshape(-1, 3)


def sample_transform(transform: SimpleITK.Transform, grid: Grid) -> DisplacementField:
    """The displacement of any ITK transform on a grid (LPS mm)."""
    import SimpleITK as sitk

    image = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat32, grid.size, grid.origin, grid.spacing, grid.direction
    )
    return DisplacementField.from_sitk(image)


#: Points that are inverted at once (12 values each are sampled per step).
_INVERSE_CHUNK = 200_000


def _invert_chunk(
    grid: Grid, values: torch.Tensor, start: torch.Tensor, limit: float, iterations: int
) -> torch.Tensor:
    """Newton for points ``start`` (3, N), index space; ``values`` hold u (3) and its gradient (9),
    zero outside the grid as the field itself. Returns the best v (3, N) found, in voxels."""

    def sample(index: torch.Tensor) -> torch.Tensor:
        index = index.reshape(3, -1, 1, 1)
        inside = (normalized_coordinates(index, grid.shape).abs() <= 1).all(dim=-1)
        return (grid.sample(values, index) * inside).reshape(12, -1)

    best = -sample(start)[:3]
    best_error = torch.full((start.shape[1],), math.inf)
    active = torch.arange(start.shape[1])
    here, scale = best.clone(), torch.ones(start.shape[1])
    for _ in range(iterations):
        sampled = sample(start[:, active] + here)
        residual = here + sampled[:3]
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
        matrix = sampled[3:, open_].T.reshape(-1, 3, 3) + torch.eye(3)
        newton = _solve3(matrix, residual[:, open_])
        length = newton.square().sum(dim=0).sqrt().clamp_min(1e-9)
        newton *= (2.0 / length).clamp_max(1.0) * scale
        here = torch.where(better[open_], here, best[:, active]) - newton
    return best


def _solve3(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solves N 3x3 systems (N, 3, 3) for right sides (3, N); singular ones are regularized."""
    determinant = torch.linalg.det(matrix)
    near = determinant.abs() < 0.02
    matrix = torch.where(near[:, None, None], matrix + 0.3 * torch.eye(3), matrix)
    return torch.linalg.solve(matrix, right.T[..., None])[..., 0].T


def _difference(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Derivative along index axis x=0, y=1, z=2: central inside, one-sided at the faces."""
    dim = values.dim() - 1 - axis
    n = values.shape[dim]
    if n == 1:
        return torch.zeros_like(values)
    out = torch.empty_like(values)
    out.narrow(dim, 1, n - 2).copy_(values.narrow(dim, 2, n - 2) - values.narrow(dim, 0, n - 2))
    out.narrow(dim, 1, n - 2).mul_(0.5)
    out.narrow(dim, 0, 1).copy_(values.narrow(dim, 1, 1) - values.narrow(dim, 0, 1))
    out.narrow(dim, n - 1, 1).copy_(values.narrow(dim, n - 1, 1) - values.narrow(dim, n - 2, 1))
    return out


def _faces(vectors: torch.Tensor) -> torch.Tensor:
    """All vectors on the six faces of the grid: (3, N)."""
    parts = []
    for dim in (1, 2, 3):
        parts += [vectors.select(dim, 0).reshape(3, -1), vectors.select(dim, -1).reshape(3, -1)]
    return torch.cat(parts, dim=1)


def _fade(size: int, lower: int, upper: int, margin: int) -> torch.Tensor:
    """1 on the original ``size`` nodes, a raised cosine to 0 over ``margin`` nodes outside."""
    position = torch.arange(-lower, size + upper, dtype=torch.float32)
    outside = torch.clamp(torch.maximum(-position, position - (size - 1)), min=0)
    # 0 is reached one node before the margin ends, so that the outermost layer is exactly zero
    share = (outside / (margin - 1)).clamp(max=1)
    return 0.5 * (1 + torch.cos(math.pi * share))
