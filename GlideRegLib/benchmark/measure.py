"""How good a result is on a pair: the same code for every method."""

from __future__ import annotations

import numpy as np

from .. import quality
from ..errors import InputError
from ..result import Result
from ..volume import Volume
from .datasets import Pair
from .structures import Layer, Structures


def measure(result: Result, pair: Pair, moving: Volume) -> dict:
    """Plain values, of what the pair can be measured with; what it cannot is None.

    ``landmarks`` and ``nodules``: errors in mm before and after, point by point, and their summary;
    ``structures``: Dice before and after by name; ``folding_percent`` (body and whole fixed grid,
    J <= 0, central differences on the fixed image's own grid) and the determinant's spread.
    """
    grids = result.fixed_grid, moving.grid
    points = {"landmarks": pair.read_landmarks, "nodules": pair.read_nodules}
    found: dict = {
        name: _errors(result, *read(*grids)) if read is not None else None
        for name, read in points.items()
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
    if len(fixed) == 0:
        raise InputError("The pair's list of points is empty.")
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
