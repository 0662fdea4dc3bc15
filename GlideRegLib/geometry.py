"""Where image geometry lives: the ONLY place where index, normalized, LPS, RAS and axis order meet.

Conventions of the whole library:

* Arrays are ``(..., Z, Y, X)``; vectors and points have components in ``x, y, z`` order.
* Points are ``(N, 3)`` in LPS mm (the frame of DICOM, ITK and SimpleITK).
* Index coordinates are continuous, ``x, y, z``, with 0 at the center of the first voxel.
* Normalized coordinates are torch's ``grid_sample`` coordinates with ``align_corners=False``:
  -1 and 1 are the outer faces of the first and last voxel, so pooled grids keep their extent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    import SimpleITK
    import torch

# LPS and RAS differ by the sign of the first two axes; the map is its own inverse.
_LPS_RAS = np.array([-1.0, -1.0, 1.0])


def flip_lps_ras(points: np.ndarray) -> np.ndarray:
    """Converts points or vectors (..., 3) in mm from LPS to RAS, or from RAS to LPS."""
    return np.asarray(points, dtype=float) * _LPS_RAS


def flip_lps_ras_matrix(matrix: np.ndarray) -> np.ndarray:
    """Converts a 4x4 transform between LPS coordinates to the same one between RAS (or back)."""
    flip = np.diag([*_LPS_RAS, 1.0])
    return flip @ np.asarray(matrix, dtype=float) @ flip


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies a 4x4 affine matrix to points (N, 3); frame and unit are those of the matrix."""
    return np.asarray(points, dtype=float) @ matrix[:3, :3].T + matrix[:3, 3]


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid in patient space.

    ``size`` counts voxels along x, y, z; ``spacing`` (mm) and ``origin`` (LPS mm, center of the
    first voxel) are in x, y, z order; ``direction`` is the row-major 3x3 matrix whose columns are
    the LPS directions of the index axes (as in SimpleITK).
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise InputError(f"A grid needs three sizes of at least 1 voxel, not {self.size}.")
        if not np.all(np.isfinite(self.spacing)) or min(self.spacing) <= 0:
            raise InputError(f"A grid needs positive voxel spacings in mm, not {self.spacing}.")
        if abs(np.linalg.det(self.direction_matrix)) < 1e-3:
            raise InputError("The direction matrix of the image is singular; repair its header.")

    # --- construction -------------------------------------------------------------------------

    @classmethod
    def from_sitk(cls, image: SimpleITK.Image) -> Grid:
        """The grid of a 3-D SimpleITK image."""
        return cls(
            tuple(int(n) for n in image.GetSize()),
            tuple(float(s) for s in image.GetSpacing()),
            tuple(float(o) for o in image.GetOrigin()),
            tuple(float(d) for d in image.GetDirection()),
        )

    def copy_to_sitk(self, image: SimpleITK.Image) -> SimpleITK.Image:
        """Writes spacing, origin and direction into a SimpleITK image; returns that image."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    # --- properties ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (Z, Y, X)."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def direction_matrix(self) -> np.ndarray:
        """3x3; columns are the LPS directions of the index axes x, y, z."""
        return np.asarray(self.direction, dtype=float).reshape(3, 3)

    @property
    def voxel_count(self) -> int:
        return int(np.prod(self.size))

    @property
    def matrix(self) -> np.ndarray:
        """4x4 matrix from continuous index (x, y, z) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction_matrix * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def extent(self) -> np.ndarray:
        """Length along each index axis in mm, outer face to outer face (x, y, z)."""
        return np.asarray(self.size) * np.asarray(self.spacing)

    @property
    def center(self) -> np.ndarray:
        """Center of the grid in LPS mm."""
        return self.to_physical((np.asarray(self.size, dtype=float)[None] - 1) / 2)[0]

    # --- coordinates --------------------------------------------------------------------------

    def to_physical(self, index: np.ndarray) -> np.ndarray:
        """Continuous indices (N, 3), x y z order, to LPS mm (N, 3)."""
        return transform_points(self.matrix, index)

    def to_index(self, points: np.ndarray) -> np.ndarray:
        """LPS mm (N, 3) to continuous indices (N, 3) in x y z order."""
        return transform_points(np.linalg.inv(self.matrix), points)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which LPS points (N, 3) lie inside the outer faces of the grid: bool (N,)."""
        index = self.to_index(points)
        return np.all((index >= -0.5) & (index <= np.asarray(self.size) - 0.5), axis=1)

    def corners(self) -> np.ndarray:
        """The eight outer corners in LPS mm (8, 3)."""
        ends = [(-0.5, n - 0.5) for n in self.size]
        index = np.array([(x, y, z) for x in ends[0] for y in ends[1] for z in ends[2]])
        return self.to_physical(index)

    def index_tensor(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """Index coordinates of every voxel: float32 (3, Z, Y, X), components x, y, z."""
        return index_tensor(self.shape, device)

    def index_of(self, other: Grid, device: str | torch.device = "cpu") -> torch.Tensor:
        """Where every voxel of ``other`` lies in this grid's index space: (3, Z, Y, X), x y z."""
        import torch

        matrix = np.linalg.inv(self.matrix) @ other.matrix
        index = _multiply(matrix[:3, :3], index_tensor(other.shape, device))
        offset = torch.as_tensor(matrix[:3, 3], dtype=torch.float32, device=device)
        return index + offset.view(3, 1, 1, 1)

    def sample(self, values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """values (C, Z, Y, X) on this grid, trilinear at continuous indices (3, z, y, x).

        Beyond the outer voxels the border is replicated. Returns (C, z, y, x).
        """
        import torch

        coordinates = normalized_coordinates(index, self.shape)[None].to(values.dtype)
        return torch.nn.functional.grid_sample(
            values[None], coordinates, padding_mode="border", align_corners=False
        )[0]

    def interpolation_weights(self, other: Grid) -> list[torch.Tensor] | None:
        """Linear interpolation at the voxels of ``other`` as one matrix (size there, size here)
        for each of the axes z, y, x; None when the axes of the two grids are not parallel.

        Rows of voxels beyond this grid's outer faces are zero.
        """
        import torch

        matrix = np.linalg.inv(self.matrix) @ other.matrix
        reach = np.abs(matrix[:3, :3]) * np.asarray(other.size)
        if (reach - np.diag(np.diag(reach))).max() > 1e-3:
            return None
        weights = []
        for axis in (2, 1, 0):
            n, count = self.size[axis], other.size[axis]
            index = matrix[axis, axis] * np.arange(count) + matrix[axis, 3]
            inside = (index >= -0.5 - 1e-6) & (index <= n - 0.5 + 1e-6)
            index = np.clip(index, 0, n - 1)
            lower = np.minimum(index.astype(int), max(n - 2, 0))
            rows = np.zeros((count, n), np.float32)
            rows[np.arange(count), lower] = (1 - (index - lower)) * inside
            rows[np.arange(count), np.minimum(lower + 1, n - 1)] += (index - lower) * inside
            weights.append(torch.from_numpy(rows))
        return weights

    # --- vectors ------------------------------------------------------------------------------

    def voxels_to_mm(self, displacement: torch.Tensor) -> torch.Tensor:
        """Displacement (3, Z, Y, X) in voxels of this grid to LPS mm."""
        return _multiply(self.matrix[:3, :3], displacement)

    def mm_to_voxels(self, displacement: torch.Tensor) -> torch.Tensor:
        """Displacement (3, Z, Y, X) in LPS mm to voxels of this grid."""
        return _multiply(np.linalg.inv(self.matrix[:3, :3]), displacement)

    # --- derived grids ------------------------------------------------------------------------

    def pooled(self, factor: int) -> Grid:
        """The grid whose voxels are blocks of ``factor``^3 voxels of this one.

        The remainder at the far end is dropped. A pooled voxel's center is NOT at an even index:
        it lies at ``factor * i + (factor - 1) / 2``.
        """
        size = tuple(max(n // factor, 1) for n in self.size)
        origin = self.to_physical(np.full((1, 3), (factor - 1) / 2))[0]
        spacing = tuple(s * factor for s in self.spacing)
        return Grid(size, spacing, tuple(map(float, origin)), self.direction)

    def padded(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> Grid:
        """This lattice with voxels added (negative: removed) before and behind, x y z order."""
        size = tuple(int(n + a + b) for n, a, b in zip(self.size, lower, upper, strict=True))
        origin = self.to_physical(-np.asarray(lower, dtype=float)[None])[0]
        return Grid(size, self.spacing, tuple(map(float, origin)), self.direction)

    def covering_box(self, points: np.ndarray, spacing: float, multiple: int = 1) -> Grid:
        """Isotropic grid with this grid's axes that covers LPS points (N, 3).

        ``spacing`` in mm; each size is a multiple of ``multiple``; the rest is shared out evenly
        on both sides, so the box stays centered on the points.
        """
        local = np.asarray(points, dtype=float) @ np.linalg.inv(self.direction_matrix).T
        low, high = local.min(axis=0), local.max(axis=0)
        count = np.maximum(np.ceil((high - low) / spacing / multiple - 1e-6), 1).astype(int)
        size = count * multiple
        first = (low + high) / 2 - (size - 1) / 2 * spacing
        origin = self.direction_matrix @ first
        return Grid(
            tuple(int(n) for n in size),
            (float(spacing),) * 3,
            tuple(float(o) for o in origin),
            self.direction,
        )

    # --- comparison and description -----------------------------------------------------------

    def is_close(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same size and the same corners within ``tolerance`` mm."""
        return self.size == other.size and bool(
            np.abs(self.corners() - other.corners()).max() <= tolerance
        )

    def to_dict(self) -> dict[str, list[float] | list[int]]:
        """Plain lists for JSON."""
        return {
            "size": list(self.size),
            "spacing_mm": list(self.spacing),
            "origin_lps_mm": list(self.origin),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, data: dict) -> Grid:
        """The inverse of :meth:`to_dict`."""
        return cls(
            tuple(data["size"]),
            tuple(data["spacing_mm"]),
            tuple(data["origin_lps_mm"]),
            tuple(data["direction"]),
        )


# --- torch sampling coordinates: align_corners=False everywhere -------------------------------


def index_tensor(shape: tuple[int, int, int], device: str | torch.device = "cpu") -> torch.Tensor:
    """Index coordinates of every voxel of a (Z, Y, X) grid: float32 (3, Z, Y, X), x y z order."""
    import torch

    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z))


def normalized_coordinates(index: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Index coordinates (3, ...) in x y z order to ``grid_sample`` coordinates (..., 3).

    ``shape`` is the (Z, Y, X) shape of the sampled array; the result is for align_corners=False.
    """
    import torch

    size = torch.tensor(shape[::-1], dtype=index.dtype, device=index.device)
    return torch.movedim(index, 0, -1) * (2 / size) + (1 / size - 1)


def _multiply(matrix: np.ndarray, vectors: torch.Tensor) -> torch.Tensor:
    import torch

    factor = torch.as_tensor(matrix, dtype=vectors.dtype, device=vectors.device)
    return torch.einsum("ij,jzyx->izyx", factor, vectors)
