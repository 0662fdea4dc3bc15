"""How good a result is on a pair: the same code for every method."""

from __future__ import annotations

import numpy as np

from .. import quality
from ..errors import InputError
from ..result import Result
from ..volume import Volume
from .datasets import Pair
from .datasets.pair import PointPair
from .structures import Layer, Structures

#: Kind of points -> the fixed and the moving ones (N, 3), LPS mm; None where there are none.
Points = dict[str, PointPair | None]


def read_points(pair: Pair, fixed: Volume, moving: Volume) -> Points:
    """The points that a pair is measured with. Raises :class:`InputError` when they are faulty."""
    readers = {"landmarks": pair.read_landmarks, "nodules": pair.read_nodules}
    grids = fixed.grid, moving.grid
    found = {name: read and read(*grids) for name, read in readers.items()}
    for name, points in found.items():
        if points is not None and len(points[0]) != len(points[1]):
            raise InputError(f"The pair has different numbers of fixed and moving {name}.")
        if points is not None and len(points[0]) == 0:
            raise InputError(f"The pair's list of {name} is empty.")
    return found


def check_structures(pair: Pair) -> None:
    """Raises :class:`InputError` when structures cannot be read. They are not kept: what is in
    memory during a registration would count as its own."""
    for structures in pair.read_structures() if pair.read_structures is not None else ():
        structures.check()


def measure(result: Result, pair: Pair, points: Points) -> dict:
    """Plain values, of what the pair can be measured with; what it cannot is None.

    ``landmarks`` and ``nodules``: errors in mm before and after, point by point, and their summary;
    ``structures``: Dice before and after by name; ``folding_percent`` (body and whole fixed grid,
    J <= 0, central differences on the fixed image's own grid) and the determinant's spread.
    """
    found: dict = {
        name: _errors(result, *both) if both is not None else None for name, both in points.items()
    }
    found["structures"] = None
    if pair.read_structures is not None:
        found["structures"] = structure_dice(result, *pair.read_structures())
    jacobian = quality.sample_jacobian(result.field, result.initial, result.fixed_grid)
    summary = quality.summarize_jacobian(jacobian, result.body)
    kept = ("folding_percent", "sd_log_jacobian", "sd_log_jacobian_learn2reg")
    return {**found, **{name: summary[name] for name in kept}}


def _errors(result: Result, fixed: np.ndarray, moving: np.ndarray) -> dict:
    """Errors of corresponding LPS points (N, 3)."""
    errors = result.landmark_errors(fixed, moving)
    return {
        name: {
            **quality.summarize_errors(values),
            "within_percent": quality.points_within(values),
            "errors_mm": [round(float(value), 4) for value in values],
        }
        for name, values in errors.items()
    }


def structure_dice(result: Result, fixed: Structures, moving: Structures) -> dict[str, dict]:
    """Dice of every structure that both images have, before (as it stands) and after, on the fixed
    grid; nearest neighbor."""
    first = {
        name: mask
        for layer in fixed.layers()
        for name, mask in _masks(_on_fixed(layer, result), layer.structures)
    }
    found: dict[str, dict] = {}
    for layer in moving.layers():
        before = _on_fixed(layer, result)
        after = result.warp(layer.volume, labels=True).array
        for value, name in layer.structures.items():
            if name in first:
                found[name] = {
                    "before": _dice(first[name], before == value),
                    "after": _dice(first[name], after == value),
                }
    return found


def _on_fixed(layer: Layer, result: Result) -> np.ndarray:
    """A layer on the fixed grid, not warped."""
    if layer.volume.grid.is_close(result.fixed_grid, 1e-2):
        return layer.volume.array
    return layer.volume.resampled(result.fixed_grid, labels=True).array


def _masks(array: np.ndarray, structures: dict[int, str]) -> list[tuple[str, np.ndarray]]:
    return [(name, array == value) for value, name in structures.items()]


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * int((a & b).sum()) / max(int(a.sum()) + int(b.sum()), 1)
