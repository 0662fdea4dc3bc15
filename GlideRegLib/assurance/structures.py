"""Per structure: overlap, surface distances, centroid shift, change of volume, folding.

The moving contour is carried onto the fixed grid by nearest neighbors and compared there with the
fixed contour. What a contour does not say (one of the maps lacks it) stays unmeasured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .. import quality
from ..geometry import Grid
from ..volume import Volume
from .deformation import Survey, folded_share
from .records import Measure
from .subject import Subject, as_place

_AXES = ("lr", "ap", "si")
NOT_IN_FIXED = "the fixed labels do not hold it"
#: What needs the fixed contour alone.
_DEFORMED = (
    "structure_folding",
    "structure_jacobian_min",
    "structure_jacobian_p1",
    "structure_jacobian_p99",
    "volume_change_jacobian",
    *(f"displacement_{axis}" for axis in _AXES),
)
#: What needs both contours.
_COMPARED = (
    "dice",
    "mean_distance",
    "hd95",
    "centroid_shift",
    *(f"centroid_{axis}" for axis in _AXES),
    "volume_change",
    "volume_disagreement",
)


@dataclass(frozen=True)
class _Maps:
    """Label maps on the fixed grid: fixed, moving as it stands, moving warped; with the boxes of
    their labels; and the moving map on its own grid."""

    grid: Grid
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
    boxes: tuple[list, list, list]
    moving: Volume
    moving_boxes: list


def structure_measures(
    subject: Subject, found: Survey, update: Callable[[float], None] = lambda share: None
) -> list[Measure]:
    """All measures of all structures; empty without label maps.

    ``update`` is called with the share that is done, and may raise to cancel.
    """
    if subject.labels is None:
        return []
    measures: list[Measure] = []
    for j, layer in enumerate(subject.layers):
        maps, names = _read_maps(layer), layer.structure_names()
        for k, (label, name) in enumerate(names.items()):
            update((j + k / len(names)) / len(subject.layers))
            measures += _compared(label, name, maps, found.central)
            measures += _deformed(label, name, maps, found)
    return measures


def _read_maps(subject: Subject) -> _Maps:
    grid, moving = subject.fixed.grid, subject.labels[1]
    arrays = (
        subject.fixed_labels,
        moving.resampled(grid, labels=True).array,
        moving.resampled(grid, subject.transform, labels=True).array,
    )
    boxes = tuple(ndimage.find_objects(a) for a in arrays)
    return _Maps(grid, arrays, boxes, moving, ndimage.find_objects(moving.array))


def _box(boxes: list, label: int) -> tuple[slice, ...] | None:
    return boxes[label - 1] if label <= len(boxes) else None


def _compared(label: int, name: str, maps: _Maps, jacobian: np.ndarray) -> list[Measure]:
    """What needs the contour in both images."""
    own, moving = _box(maps.boxes[0], label), _box(maps.moving_boxes, label)
    if own is None or moving is None:
        note = NOT_IN_FIXED if own is None else "the moving labels do not hold it"
        return [Measure(key, name, None, note=note) for key in _COMPARED]
    before, after = (_agreement(label, maps, k) for k in (1, 2))
    note = "" if after["centroid"] is not None else "it left the fixed image"
    measures = [
        Measure("dice", name, after["dice"], before["dice"], note=note),
        Measure(
            "mean_distance", name, after["mean"], before["mean"], place=after["place"], note=note
        ),
        Measure("hd95", name, after["hd95"], before["hd95"], place=after["place"], note=note),
        *_centroid_shifts(label, name, maps, after["centroid"], note),
    ]
    return measures + _volume_changes(label, name, maps, jacobian)


def _agreement(label: int, maps: _Maps, other: int) -> dict:
    """Dice, mean of the surface distances, HD95, where the surfaces are farthest apart, and the
    other's centroid; None for what does not exist."""
    boxes = [b for b in (_box(maps.boxes[k], label) for k in (0, other)) if b is not None]
    box = tuple(
        slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes))
        for axis in range(3)
    )
    a, b = (maps.arrays[k][box] == label for k in (0, other))
    sizes = int(a.sum()), int(b.sum())
    found: dict = dict.fromkeys(("mean", "hd95", "place", "centroid"))
    found["dice"] = 2 * int((a & b).sum()) / max(sum(sizes), 1)
    if min(sizes) == 0:
        return found
    start = np.array([s.start for s in box])[::-1]
    directed, index = quality.surface_distances(a, b, maps.grid)
    distances = np.concatenate(directed)
    farthest = np.concatenate(index)[distances.argmax()] + start
    centroid = np.argwhere(b).mean(axis=0)[::-1] + start
    found["mean"], found["hd95"] = float(distances.mean()), quality.hd95(directed)
    found["place"] = as_place(maps.grid.to_physical(farthest[None])[0])
    found["centroid"] = maps.grid.to_physical(centroid[None])[0]
    return found


def _centroid_shifts(
    label: int, name: str, maps: _Maps, warped: np.ndarray | None, note: str
) -> list[Measure]:
    """Where the warped contour's centroid lies, seen from the fixed one's; before: where the
    moving contour's lies as its coordinates stand."""
    fixed = _centroid(maps.arrays[0], _box(maps.boxes[0], label), label, maps.grid)
    moving = _centroid(maps.moving.array, _box(maps.moving_boxes, label), label, maps.moving.grid)
    before = moving - fixed
    after = None if warped is None else warped - fixed

    def value(shift: np.ndarray | None, axis: int) -> float | None:
        return None if shift is None else float(shift[axis])

    length = None if after is None else float(np.linalg.norm(after))
    place = as_place(fixed)
    return [
        Measure(
            "centroid_shift", name, length, float(np.linalg.norm(before)), place=place, note=note
        ),
        *(
            Measure(f"centroid_{axis}", name, value(after, k), value(before, k), note=note)
            for k, axis in enumerate(_AXES)
        ),
    ]


def _centroid(array: np.ndarray, box: tuple[slice, ...], label: int, grid: Grid) -> np.ndarray:
    start = np.array([s.start for s in box])[::-1]
    index = np.argwhere(array[box] == label).mean(axis=0)[::-1] + start
    return grid.to_physical(index[None])[0]


def _volume_changes(label: int, name: str, maps: _Maps, jacobian: np.ndarray) -> list[Measure]:
    """Volume of the moving against the fixed contour, and how far the integrated Jacobian is from
    it. Contours that a scan cuts off disagree without any fault of the transform; a note says so.
    """
    own, moving = _box(maps.boxes[0], label), _box(maps.moving_boxes, label)
    fixed_mask = maps.arrays[0][own] == label
    fixed_volume = fixed_mask.sum() * np.prod(maps.grid.spacing)
    moving_count = (maps.moving.array[moving] == label).sum()
    contours = 100 * (moving_count * np.prod(maps.moving.grid.spacing) / fixed_volume - 1)
    predicted = 100 * (jacobian[own][fixed_mask].mean(dtype=np.float64) - 1)
    shapes = ((own, maps.arrays[0].shape), (moving, maps.moving.array.shape))
    cut = any(
        s.start == 0 or s.stop == n
        for box, shape in shapes
        for s, n in zip(box, shape, strict=True)
    )
    note = "it reaches the edge of an image" if cut else ""
    return [
        Measure("volume_change", name, float(contours), note=note),
        Measure("volume_disagreement", name, float(abs(contours - predicted)), note=note),
    ]


def _deformed(label: int, name: str, maps: _Maps, found: Survey) -> list[Measure]:
    """What the transform does to the fixed contour: it needs no other."""
    box = _box(maps.boxes[0], label)
    if box is None:
        return [Measure(key, name, None, note=NOT_IN_FIXED) for key in _DEFORMED]
    own = maps.arrays[0][box] == label
    inside = found.jacobian[box][own]
    n = int(inside.size)
    growth = found.central[box][own].mean(dtype=np.float64) - 1
    start = np.array([s.start for s in box])[::-1]
    lowest = np.argwhere(own)[inside.argmin()][::-1] + start
    place = as_place(maps.grid.to_physical(lowest[None].astype(float))[0])
    moved = found.of_label[label]
    low, high = np.percentile(inside, (1, 99))
    return [
        folded_share("structure_folding", name, inside),
        Measure("structure_jacobian_min", name, float(inside.min()), place=place),
        Measure("structure_jacobian_p1", name, float(low)),
        Measure("structure_jacobian_p99", name, float(high)),
        Measure("volume_change_jacobian", name, float(100 * growth), n=n),
        *(Measure(f"displacement_{axis}", name, float(moved[k])) for k, axis in enumerate(_AXES)),
    ]
