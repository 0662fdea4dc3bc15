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
from .inversion import difference, invert_lattice, invert_points, node_index
from .volume import first_sentence

if TYPE_CHECKING:
    import SimpleITK

#: Slices per slab of the determinant: nine derivatives of a slab fit into the processor's cache.
_SLAB = 8
#: How far a point may land from where it began after the field and its numerical inverse, mm.
INVERSE_TOLERANCE_MM = 1e-3
#: Fewer points than this go through an ITK transform one by one; more in rows of so many.
_FEW_POINTS, _CHUNK = 200, 100_000


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
        index = self.grid.to_index(points)
        if len(index) == 0:
            return np.zeros((0, 3))
        # Only the nodes around the points are made double: a lattice may hold millions.
        size = np.asarray(self.grid.size)
        low = np.floor(np.clip(index.min(axis=0), 0, size - 1)).astype(int)
        high = np.floor(np.clip(index.max(axis=0), 0, size - 1)).astype(int) + 2
        (x, y, z), (right, back, top) = low, np.minimum(high, size)
        part = self.vectors[:, z:top, y:back, x:right].double()
        box = self.grid.padded(tuple(-low), tuple(np.minimum(high, size) - size))
        local = torch.from_numpy((index - low).T.reshape(3, -1, 1, 1))
        inside = np.all((index >= -0.5) & (index <= size - 0.5), axis=1)
        return box.sample(part, local).reshape(3, -1).T.numpy() * inside[:, None]

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """p + u(p) for LPS points (N, 3)."""
        return np.asarray(points, dtype=float) + self.sample(points)

    def sample_grid(self, grid: Grid, displaced: torch.Tensor | None = None) -> torch.Tensor:
        """u at every voxel of ``grid`` (moved by ``displaced``, LPS mm, first): (3, Z, Y, X) mm."""
        if displaced is None:
            weights = self.grid.interpolation_weights(grid)
            if weights is not None:
                return _interpolate(self.vectors, *weights)
            return self._sample_index(self.grid.index_of(grid))
        index = self.grid.index_of(grid) + self.grid.mm_to_voxels(displaced)
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

    def inverse(self, near: np.ndarray | None = None) -> DisplacementField:
        """Numerical inverse v on the same grid: q + v(q) + u(q + v(q)) = q at every node, within
        ``INVERSE_TOLERANCE_MM``.

        With ``near``, LPS points (N, 3), only the nodes around them are inverted, and the others
        are zero. Between nodes the inverse is interpolated; :meth:`inverse_points` is exact
        everywhere. Where the field folds a point has several inverses, and one of them is found:
        the residual is small at most nodes there and does not tell of folds; the determinant does.
        """
        if near is None:
            inverse = invert_lattice(self.to_voxels(), self._inverse_limit)
            return DisplacementField(self.grid.voxels_to_mm(inverse), self.grid)
        nodes = self._nodes_around(near)
        index = node_index(nodes, self.grid.shape)
        found = invert_points(self.to_voxels(), index, self._inverse_limit)
        vectors = torch.zeros_like(self.vectors)
        in_mm = self.grid.voxels_to_mm(found.view(3, 1, 1, -1)).view(3, -1)
        vectors.view(3, -1)[:, nodes] = in_mm
        return DisplacementField(vectors, self.grid)

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """The LPS points p (N, 3) with p + u(p) = q, for LPS points q (N, 3)."""
        index = torch.as_tensor(self.grid.to_index(points).T, dtype=torch.float32)
        found = index + invert_points(self.to_voxels(), index, self._inverse_limit)
        return self.grid.to_physical(found.T.double().numpy())

    @property
    def _inverse_limit(self) -> float:
        """The tolerance in voxels: a residual below it is below the tolerance in mm."""
        return INVERSE_TOLERANCE_MM / max(self.grid.spacing)

    def _nodes_around(self, points: np.ndarray) -> torch.Tensor:
        """Flat indices of the nodes that interpolation at LPS points (N, 3) reads."""
        size = np.asarray(self.grid.size)
        lower = np.floor(np.clip(self.grid.to_index(points), 0, size - 1)).astype(int)
        steps = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        nodes = np.minimum(lower[:, None] + steps, size - 1).reshape(-1, 3)
        flat = (nodes[:, 2] * size[1] + nodes[:, 1]) * size[0] + nodes[:, 0]
        read = torch.zeros(self.grid.voxel_count, dtype=torch.bool)
        read[torch.from_numpy(flat.ravel())] = True
        return torch.nonzero(read)[:, 0]

    def inverse_residual(self, inverse: DisplacementField) -> torch.Tensor:
        """|(Id + self)(q + v(q)) - q| in mm at every node of the inverse's grid: (Z, Y, X).

        It tells whether v was computed well, not whether the field folds.
        """
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
            vectors.mul_(window.view(view))
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
    depth = vectors.shape[1]
    out = torch.empty_like(vectors[0])
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        low, high = max(start - 1, 0), min(stop + 1, depth)
        # In voxels of the grid: the determinant is the same, and the axes are the array's own.
        gradient = gradient_along_index(grid.mm_to_voxels(vectors[:, low:high]))
        gradient = gradient[:, :, start - low : stop - low]
        (a, b, c), (d, e, f), (g, h, i) = gradient
        a, e, i = a + 1, e + 1, i + 1
        part = torch.mul(e * i - f * h, a, out=out[start:stop])
        part.addcmul_(d * i - f * g, b, value=-1).addcmul_(d * h - e * g, c)
    return out


def gradient_along_index(vectors: torch.Tensor) -> torch.Tensor:
    """Derivatives of (3, Z, Y, X) along the index axes: (3 components, 3 axes x y z, Z, Y, X)."""
    return torch.stack([difference(vectors, axis) for axis in range(3)], dim=1)


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
    sentence when the file is missing, damaged, not 3-D, neither of both, or holds NaN or infinity.
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
    else:
        transform = DisplacementField.from_sitk(image).to_sitk_transform()
    if not all(_is_finite(part) for part in transform_parts(transform)):
        raise InputError(
            f"The transform '{path}' holds NaN or infinite values; whatever goes through it there "
            "is lost. Make it anew."
        )
    return transform


def transform_parts(transform: SimpleITK.Transform) -> list[SimpleITK.Transform]:
    """The single transforms of a composite, also of nested ones, in the order in which a point
    goes through them; a transform that is none is its own only part."""
    import SimpleITK as sitk

    if transform.GetName() != "CompositeTransform":
        return [transform]
    whole = sitk.CompositeTransform(transform)
    # ITK applies the transform that was added last first.
    order = reversed(range(whole.GetNumberOfTransforms()))
    return [part for k in order for part in transform_parts(whole.GetNthTransform(k))]


def _is_finite(part: SimpleITK.Transform) -> bool:
    """Whether all numbers of a transform that is no composite are finite."""
    import SimpleITK as sitk

    if part.GetName() == "DisplacementFieldTransform":
        field = sitk.DisplacementFieldTransform(part).GetDisplacementField()
        return all(np.isfinite(layer).all() for layer in sitk.GetArrayViewFromImage(field))
    return bool(np.isfinite((*part.GetParameters(), *part.GetFixedParameters())).all())


def transform_points(transform: SimpleITK.Transform, points: np.ndarray) -> np.ndarray:
    """Applies an ITK transform to LPS points (N, 3)."""
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    if len(points) < _FEW_POINTS:
        moved = [transform.TransformPoint(p) for p in points.tolist()]
        return np.asarray(moved, dtype=float).reshape(-1, 3)
    parts = [
        _transform_many(transform, points[start : start + _CHUNK])
        for start in range(0, len(points), _CHUNK)
    ]
    return np.concatenate(parts)


def _transform_many(transform: SimpleITK.Transform, points: np.ndarray) -> np.ndarray:
    """The same for many points, without a call per point: ITK evaluates transforms fast on grids
    only, so a field sends the nodes of a row to the points first."""
    import SimpleITK as sitk

    nodes = np.zeros_like(points)
    nodes[:, 0] = np.arange(len(points))
    field = sitk.GetImageFromArray((points - nodes)[None, None], isVector=True)
    # ITK applies the transform that was added last first.
    both = sitk.CompositeTransform([transform, sitk.DisplacementFieldTransform(field)])
    size = (len(points), 1, 1)
    image = sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, size)
    return sitk.GetArrayFromImage(image).reshape(-1, 3) + nodes


def sample_transform(transform: SimpleITK.Transform, grid: Grid) -> DisplacementField:
    """The displacement of any ITK transform on a grid (LPS mm)."""
    import SimpleITK as sitk

    image = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat32, grid.size, grid.origin, grid.spacing, grid.direction
    )
    return DisplacementField.from_sitk(image)


def _interpolate(
    values: torch.Tensor, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """values (C, Z, Y, X) through one matrix (new size, old size) for each axis."""
    matrices = []
    for dim, matrix in enumerate((z, y, x), start=1):
        used = torch.nonzero(matrix.any(dim=0))[:, 0].tolist() or [0]
        first, count = used[0], used[-1] - used[0] + 1
        values = values.narrow(dim, first, count)
        matrices.append(matrix.narrow(1, first, count))
    z, y, x = matrices
    channels, depth, height, width = values.shape
    slices = z @ values.permute(1, 0, 2, 3).reshape(depth, -1)
    slices = slices.view(len(z), channels, height, width).transpose(0, 1)
    return y @ slices @ x.T


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
