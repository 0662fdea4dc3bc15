"""From volumes to upright 2-D pictures in three planes, whatever the image's axes are.

Display is radiological: patient right is at the left of axial and coronal pictures, anterior is up
in axial ones and at the left in sagittal ones, superior is up in coronal and sagittal ones. The
slices are those of the fixed grid itself, permuted and flipped, never interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Grid

#: Plane -> patient axis across it, of its columns, of its rows (0 left, 1 posterior, 2 superior).
_PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}
PLANES = tuple(_PLANES)

#: Letters of the LPS axes: towards the positive and the negative end.
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))
#: A second letter stands where an axis leans at least this much (sine, about 17 degrees) over.
_SECOND_LETTER = 0.3

#: HU windows: of a scan that shows lung, and of one that does not.
LUNG_WINDOW = (-1000.0, 400.0)
SOFT_TISSUE_WINDOW = (-160.0, 240.0)
#: A scan shows lung when this share of the body is aerated tissue.
_LUNG_SHARE = 0.1
#: What counts as lung, HU: above air outside the body, below fat and soft tissue.
_LUNG_HU = -500.0


@dataclass(frozen=True)
class Plane:
    """A slice of a grid, upright: how to cut arrays, where its pixels lie, how large they are.

    ``letters`` stand at the left, right, top and bottom; ``index`` is the slice along the grid's
    axis ``axis`` (0 x, 1 y, 2 z); ``pixel_mm`` the width and height of a pixel. ``right`` and
    ``down`` are unit LPS vectors along the columns and the rows of the picture.
    """

    name: str
    grid: Grid
    axis: int
    index: int
    letters: tuple[str, str, str, str]
    pixel_mm: tuple[float, float]
    right: tuple[float, float, float]
    down: tuple[float, float, float]
    _transpose: bool
    _flip_rows: bool
    _flip_columns: bool

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width (mm / mm)."""
        return self.pixel_mm[1] / self.pixel_mm[0]

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The slice of an array (..., Z, Y, X) on the grid as a picture (..., rows, columns)."""
        return self.upright(np.take(array, self.index, axis=array.ndim - 1 - self.axis))

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Turns a slice as it lies in memory into rows from top to bottom, columns from left."""
        if self._transpose:
            picture = np.swapaxes(picture, -1, -2)
        if self._flip_rows:
            picture = picture[..., ::-1, :]
        return picture[..., ::-1] if self._flip_columns else picture

    def points(self) -> np.ndarray:
        """LPS mm of every pixel's center: (rows, columns, 3)."""
        size = list(self.grid.size)
        size[self.axis] = 1
        z, y, x = np.indices(size[::-1], dtype=float)
        index = np.stack([x, y, z])
        index[self.axis] = self.index
        picture = self.upright(np.squeeze(index, axis=3 - self.axis))
        points = self.grid.to_physical(picture.reshape(3, -1).T)
        return points.reshape(*picture.shape[1:], 3)

    def slab(self) -> tuple[Grid, int]:
        """The slice with its neighbors as a grid of its own, and the slice's index in it.

        What is differentiated there equals what is differentiated on the whole grid.
        """
        first = max(self.index - 1, 0)
        last = min(self.index + 1, self.grid.size[self.axis] - 1)
        lower, upper = [0, 0, 0], [0, 0, 0]
        lower[self.axis] = -first
        upper[self.axis] = last + 1 - self.grid.size[self.axis]
        return self.grid.padded(tuple(lower), tuple(upper)), self.index - first


def plane_through(grid: Grid, name: str, point: np.ndarray) -> Plane:
    """The plane "axial", "coronal" or "sagittal" of a grid that is nearest to an LPS point (3,)."""
    across, columns, rows = _PLANES[name]
    axes = nearest_axes(grid)
    center = grid.to_index(np.asarray(point, dtype=float)[None])[0]
    own, column_axis, row_axis = axes[across], axes[columns], axes[rows]
    direction = grid.direction_matrix
    right, down = direction[:, column_axis], direction[:, row_axis]
    # Columns run to the left or posterior, rows to posterior in axial pictures, else to inferior.
    flip_columns = right[columns] < 0
    flip_rows = (down[rows] < 0) == (rows == 1)
    right, down = right * (-1 if flip_columns else 1), down * (-1 if flip_rows else 1)
    return Plane(
        name=name,
        grid=grid,
        axis=own,
        index=int(np.clip(round(center[own]), 0, grid.size[own] - 1)),
        letters=tuple(direction_letters(v) for v in (-right, right, -down, down)),
        pixel_mm=(grid.spacing[column_axis], grid.spacing[row_axis]),
        right=tuple(map(float, right)),
        down=tuple(map(float, down)),
        # After the cut the array has the two remaining axes, the larger index axis first.
        _transpose=row_axis < column_axis,
        _flip_rows=bool(flip_rows),
        _flip_columns=bool(flip_columns),
    )


def direction_letters(vector: np.ndarray) -> str:
    """Letters of an LPS direction (3,): "R", or "RA" where it leans clearly to a second axis."""
    vector = np.asarray(vector, dtype=float) / np.linalg.norm(vector)
    order = np.argsort(-np.abs(vector), kind="stable")
    shown = [k for n, k in enumerate(order[:2]) if n == 0 or abs(vector[k]) >= _SECOND_LETTER]
    return "".join(_LETTERS[k][0 if vector[k] > 0 else 1] for k in shown)


def nearest_axes(grid: Grid) -> list[int]:
    """For the patient axes left, posterior, superior: the index axis that runs along it."""
    size = np.abs(grid.direction_matrix)
    axes = [-1, -1, -1]
    for _ in range(3):
        patient, own = np.unravel_index(int(size.argmax()), size.shape)
        axes[patient] = int(own)
        size[patient, :] = size[:, own] = -1
    return axes


def tilt_degrees(grid: Grid) -> float:
    """The largest angle between an axis of the grid and the patient axis it is shown as."""
    own = nearest_axes(grid)
    cosines = [abs(grid.direction_matrix[patient, own[patient]]) for patient in range(3)]
    return float(np.degrees(np.arccos(np.clip(min(cosines), 0, 1))))


def display_window(values: np.ndarray, body: np.ndarray, modality: str) -> tuple[float, float]:
    """Lowest and highest value shown, by what the body (bool, shape of ``values``) holds.

    CT: the lung window when much of the body is lung, else soft tissue (HU). MR: the 1st and 99.5th
    percentile of the body, because MR intensities have no unit.
    """
    inside = values[body] if body.any() else values.ravel()
    if modality == "ct":
        return LUNG_WINDOW if np.mean(inside < _LUNG_HU) > _LUNG_SHARE else SOFT_TISSUE_WINDOW
    low, high = np.percentile(inside, (1, 99.5))
    return float(low), float(max(high, low + 1e-6))
