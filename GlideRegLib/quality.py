"""How good a registration is: landmarks, labels, plausibility of the field, consistency.

Definitions follow the field (Learn2Reg, DIR-Lab, AAPM TG-132); each docstring states its own.
Unless said otherwise: points in LPS mm, distances in mm, arrays (Z, Y, X).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import ndimage, stats
from scipy.spatial import cKDTree

from .errors import InputError
from .field import DisplacementField, jacobian_determinant
from .folding import OwnNodes, folded_nodes, folded_voxels
from .geometry import Grid

#: Thresholds of the nodule measure CPM, mm (GLIDE-Reg, Table 4).
CPM_THRESHOLDS_MM = (0.5, 1.0, 2.0, 5.0)


def landmark_errors(mapped: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Distances (N,) between mapped fixed landmarks and moving landmarks, both (N, 3) LPS mm."""
    mapped, moving = np.asarray(mapped, dtype=float), np.asarray(moving, dtype=float)
    if mapped.shape != moving.shape:
        raise InputError(
            f"There are {len(mapped)} fixed and {len(moving)} moving landmarks; "
            "they must correspond one to one."
        )
    return np.linalg.norm(mapped - moving, axis=1)


def summarize_errors(errors: np.ndarray) -> dict[str, float | int | list[float]]:
    """Mean, median, standard deviation, 95th percentile, maximum, n of errors in mm, and the 95 %
    confidence interval of the mean (Student's t). Not snapped to voxel centers."""
    errors = np.asarray(errors, dtype=float)
    n = len(errors)
    summary: dict[str, float | int | list[float]] = {
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "std": float(errors.std(ddof=1)) if n > 1 else 0.0,
        "p95": float(np.percentile(errors, 95)),
        "max": float(errors.max()),
        "n": n,
    }
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1)) * summary["std"] / np.sqrt(n)
        summary["ci95"] = [summary["mean"] - half, summary["mean"] + half]
    return summary


def points_within(errors: np.ndarray) -> dict[str, float]:
    """CPM: the percentage of points whose error is at most 0.5, 1, 2 and 5 mm."""
    errors = np.asarray(errors, dtype=float)
    return {f"{t:g}": float(100 * np.mean(errors <= t)) for t in CPM_THRESHOLDS_MM}


def landmark_summary(before: np.ndarray, after: np.ndarray) -> dict:
    """``tre_mm`` and ``cpm_percent``, before and after, from errors (N,) in mm."""
    pair = {"before": before, "after": after}
    return {
        "tre_mm": {name: summarize_errors(errors) for name, errors in pair.items()},
        "cpm_percent": {name: points_within(errors) for name, errors in pair.items()},
    }


def label_summary(fixed: np.ndarray, unmoved: np.ndarray, warped: np.ndarray, grid: Grid) -> dict:
    """``labels`` (per label, before and after) and ``mean_dice``, when the fixed map has labels;
    label maps (Z, Y, X) on ``grid``: fixed, moving as it stands, moving warped."""
    before, after = (compare_labels(fixed, other, grid) for other in (unmoved, warped))
    names = sorted(set(before) | set(after), key=int)
    summary: dict = {
        "labels": {name: {"before": before.get(name), "after": after.get(name)} for name in names}
    }
    if fixed.any():
        summary["mean_dice"] = {"before": mean_dice(before), "after": mean_dice(after)}
    return summary


def compare_labels(first: np.ndarray, second: np.ndarray, grid: Grid) -> dict[str, dict]:
    """Per label: Dice, HD95 and mean distance to agreement (mm) between two label maps.

    Dice = 2 |A and B| / (|A| + |B|). Surface distances run between the boundary voxels of both,
    in both directions: HD95 is the larger of their two 95th percentiles (see :func:`hd95`), the
    distance to agreement the mean of all. A label that one map lacks gets Dice 0 and null
    distances.
    """
    if first.shape != second.shape:
        raise InputError(
            f"The label maps have different shapes: {first.shape} and {second.shape} (Z, Y, X)."
        )
    labels = np.union1d(np.unique(first), np.unique(second))
    return {
        str(int(label)): _compare_one(first == label, second == label, grid)
        for label in labels[labels != 0]
    }


def mean_dice(labels: dict[str, dict]) -> float:
    """Mean Dice over the labels that the fixed map has (nan when it has none)."""
    values = [entry["dice"] for entry in labels.values() if entry["fixed_voxels"] > 0]
    return float(np.mean(values)) if values else float("nan")


def _compare_one(a: np.ndarray, b: np.ndarray, grid: Grid) -> dict[str, float | int | None]:
    sizes = int(a.sum()), int(b.sum())
    result: dict[str, float | int | None] = {
        "dice": 2.0 * int((a & b).sum()) / max(sum(sizes), 1),
        "hd95_mm": None,
        "mean_distance_mm": None,
        "fixed_voxels": sizes[0],
        "warped_voxels": sizes[1],
    }
    if min(sizes) == 0:
        return result
    distances, _ = surface_distances(a, b, grid)
    result["hd95_mm"] = hd95(distances)
    result["mean_distance_mm"] = float(np.concatenate(distances).mean())
    return result


def hd95(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """The larger of the 95th percentiles of both directions, from distances (N,) and (M,) in mm.

    Both directions pooled would hide what only one surface has: a thin protrusion is far from the
    other surface, which is close to the rest of it. Source: MONAI ``compute_hausdorff_distance``;
    Learn2Reg takes the same maximum, with each distance weighted by its piece of surface.
    """
    return max(float(np.percentile(directed, 95)) for directed in distances)


def surface_distances(
    a: np.ndarray, b: np.ndarray, grid: Grid
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Distances in mm, (N,) and (M,), from each boundary voxel of the first and of the second mask
    (bool, (Z, Y, X), neither empty) to the other boundary, and the indices (N, 3) and (M, 3),
    x y z, of those voxels.

    Boundary voxels are those that an erosion by the six neighbors takes away.
    """
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    index = []
    for mask in (a[box], b[box]):
        surface = mask & ~ndimage.binary_erosion(mask, border_value=0)
        index.append((np.argwhere(surface) + [s.start for s in box])[:, ::-1])
    # Trees of the boundaries alone: distance maps of whole boxes take minutes for fine CT.
    first, second = (part * np.asarray(grid.spacing) for part in index)
    distances = cKDTree(second).query(first)[0], cKDTree(first).query(second)[0]
    return distances, (index[0], index[1])


def sample_jacobian(
    field: DisplacementField,
    linear: np.ndarray,
    grid: Grid,
    check: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Jacobian determinant of p -> linear(p + u(p)) at every voxel of ``grid``: (Z, Y, X).

    Central differences at the full resolution of ``grid``, slab by slab. ``linear`` is 4x4.
    """
    out = torch.empty(grid.shape)
    for inner, halo, part, vectors in _slabs(field, grid, check):
        out[inner] = jacobian_determinant(vectors, part)[halo]
    return out.mul_(float(np.linalg.det(linear[:3, :3])))


def sample_folds(
    field: DisplacementField,
    linear: np.ndarray,
    grid: Grid,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Voxels of ``grid`` in which p -> linear(p + u(p)) folds: bool (Z, Y, X).

    As the quality assurance counts them (:mod:`.folding`): by one-sided differences, at the voxels
    and at the field's own nodes. Central differences, as in :func:`sample_jacobian`, see fewer.
    """
    if np.linalg.det(linear[:3, :3]) <= 0:
        return np.ones(grid.shape, bool)
    folded = np.zeros(grid.shape, bool)
    for inner, halo, part, vectors in _slabs(field, grid, check):
        found = np.zeros(part.shape, bool)
        found.reshape(-1)[folded_voxels(vectors, part)[0]] = True
        folded[inner] = found[halo]
    nodes = OwnNodes(np.eye(4), field.grid, field.sample_grid)
    folded.reshape(-1)[folded_nodes(nodes, grid)[0]] = True
    return folded


def _slabs(
    field: DisplacementField, grid: Grid, check: Callable[[], None]
) -> Iterator[tuple[slice, slice, Grid, torch.Tensor]]:
    """Slices of the grid, where they lie within the sampled part, that part, its displacement."""
    depth = grid.size[2]
    for start in range(0, depth, 32):
        check()
        stop = min(start + 32, depth)
        low, high = max(start - 1, 0), min(stop + 1, depth)
        part = grid.padded((0, 0, -low), (0, 0, high - depth))
        yield slice(start, stop), slice(start - low, stop - low), part, field.sample_grid(part)


def summarize_folds(folded: np.ndarray, body: np.ndarray) -> dict:
    """``folding_percent_one_sided`` of a map from :func:`sample_folds`: the share of its voxels in
    the body mask and in the whole grid, as an assessment states them."""
    inside = folded[body] if body.any() else folded
    return {
        "folding_percent_one_sided": {
            "body": float(100 * inside.mean()),
            "grid": float(100 * folded.mean()),
        }
    }


def summarize_jacobian(jacobian: torch.Tensor, body: np.ndarray) -> dict:
    """Folding and spread of a determinant map (Z, Y, X) of the whole transform.

    ``folding_percent``: voxels with J <= 0 by central differences, in the body mask and in the
    whole grid (the two outer layers left out), which is how Learn2Reg and the benchmark count;
    :func:`sample_folds` counts more strictly. ``sd_log_jacobian``: standard deviation of log J in
    the body with J clipped to 1e-6. ``sd_log_jacobian_learn2reg``: that challenge's own formula
    over the grid, std(log(clip(J + 3, 1e-9, 1e9))), which hides folding.
    """
    j = jacobian.numpy()
    inner = tuple(slice(2, -2) if n > 4 else slice(None) for n in j.shape)
    j, mask = j[inner], body[inner]
    if not mask.any():
        mask = np.ones_like(mask)
    in_body = j[mask]
    percentiles = np.percentile(in_body, (1, 5, 50, 95, 99))
    return {
        "folding_percent": {
            "body": float(100 * np.mean(in_body <= 0)),
            "grid": float(100 * np.mean(j <= 0)),
        },
        "sd_log_jacobian": float(np.log(np.clip(in_body, 1e-6, None)).std()),
        "sd_log_jacobian_learn2reg": float(np.log(np.clip(j + 3, 1e-9, 1e9)).std()),
        "jacobian": {
            "min": float(in_body.min()),
            "max": float(in_body.max()),
            **{f"p{p}": float(v) for p, v in zip((1, 5, 50, 95, 99), percentiles, strict=True)},
        },
    }


def inverse_consistency(
    field: DisplacementField, inverse: DisplacementField, points: np.ndarray
) -> dict[str, float]:
    """|inverse(forward(p)) - p| at LPS points (N, 3): mean, 95th percentile and maximum, mm.

    A sanity check of the numerical inverse, not a measure of accuracy.
    """
    there = field.transform_points(points)
    back = inverse.transform_points(there)
    errors = np.linalg.norm(back - points, axis=1)
    return {
        "mean": float(errors.mean()),
        "p95": float(np.percentile(errors, 95)),
        "max": float(errors.max()),
    }
