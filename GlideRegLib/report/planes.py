"""From volumes to upright 2-D pictures in three planes, whatever the image's axes are.

Display is radiological: patient right is at the left of axial and coronal pictures, anterior is up
in axial ones and at the left in sagittal ones, superior is up in coronal and sagittal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Grid

#: Plane -> (patient axis across it, axis of the columns, axis of the rows, letters L R T B).
#: Patient axes: 0 towards left, 1 towards posterior, 2 towards superior (LPS).
_PLANES = {
    "axial": (2, 0, 1, ("R", "L", "A", "P")),
    "coronal": (1, 0, 2, ("R", "L", "S", "I")),
    "sagittal": (0, 1, 2, ("A", "P", "S", "I")),
}
PLANES = tuple(_PLANES)


@dataclass(frozen=True)
class Plane:
    """A slice of the fixed grid, upright: how to cut arrays, and how large pixels are.

    ``aspect`` is the height of a pixel over its width (mm / mm); ``letters`` stand at the left,
    right, top and bottom.
    """

    name: str
    letters: tuple[str, str, str, str]
    aspect: float
    index: int
    _across: int
    _transpose: bool
    _flip_rows: bool
    _flip_columns: bool

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The slice of an array (..., Z, Y, X) on the fixed grid as picture rows and columns."""
        picture = np.take(array, self.index, axis=array.ndim - 1 - self._across)
        if self._transpose:
            picture = np.swapaxes(picture, -1, -2)
        if self._flip_rows:
            picture = picture[..., ::-1, :]
        return picture[..., ::-1] if self._flip_columns else picture


def plane_through(grid: Grid, name: str, point: np.ndarray) -> Plane:
    """The plane "axial", "coronal" or "sagittal" of a grid that is nearest to an LPS point (3,)."""
    across, columns, rows, letters = _PLANES[name]
    axes = nearest_axes(grid)
    center = grid.to_index(np.asarray(point, dtype=float)[None])[0]
    own = axes[across]
    index = int(np.clip(round(center[own]), 0, grid.size[own] - 1))
    column_axis, row_axis = axes[columns], axes[rows]
    direction = grid.direction_matrix
    # After the cut the array has the two remaining axes, the larger index axis first.
    transpose = row_axis < column_axis
    # Rows run down: to posterior in axial pictures, to inferior in the others.
    down = 1.0 if rows == 1 else -1.0
    return Plane(
        name=name,
        letters=letters,
        aspect=grid.spacing[row_axis] / grid.spacing[column_axis],
        index=index,
        _across=own,
        _transpose=transpose,
        _flip_rows=direction[rows, row_axis] * down < 0,
        _flip_columns=direction[columns, column_axis] < 0,
    )


def nearest_axes(grid: Grid) -> list[int]:
    """For the patient axes left, posterior, superior: the index axis that runs along it."""
    size = np.abs(grid.direction_matrix)
    axes = [-1, -1, -1]
    for _ in range(3):
        patient, own = np.unravel_index(int(size.argmax()), size.shape)
        axes[patient] = int(own)
        size[patient, :] = size[:, own] = -1
    return axes


def display_window(fixed: np.ndarray, body: np.ndarray, modality: str) -> tuple[float, float]:
    """Lowest and highest value shown: HU window for lungs or soft tissue; percentiles for MR."""
    if modality == "ct":
        inside = fixed[body] if body.any() else fixed.ravel()
        lung = float(np.mean(inside < -500))
        return (-1000.0, 400.0) if lung > 0.1 else (-160.0, 240.0)
    low, high = np.percentile(fixed, (1, 99.5))
    return float(low), float(max(high, low + 1e-6))
