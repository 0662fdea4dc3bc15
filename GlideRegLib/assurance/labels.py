"""Structures from files: pairs of label maps, and segmentations whose segments may overlap.

Label maps are paired by their numbers. Slicer's segmentations (``.seg.nrrd``) are paired by the
names of their segments, which may lie in several layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..propagation.volumes import read_layers
from ..redaction import without_persons
from ..volume import Volume, content_hash

#: Labels above this are renumbered: tables are as long as the largest one.
_LARGEST = 65_535


@dataclass(frozen=True)
class _File:
    """Layers of one file, and where each named segment is: (name, how many before it were called
    the same) -> (layer, label). Plain label maps have one layer and no names."""

    layers: list[Volume]
    segments: dict[tuple[str, int], tuple[int, int]]


def read_label_pairs(
    files: Sequence[tuple[str, str | None]],
    names: dict[int, str],
    moving: Grid,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[tuple[Volume, Volume]], dict[int, str]]:
    """Pairs of label maps, no structure overlapping another one of its pair, and names by label.

    ``files`` are pairs of a fixed and a moving file; without a moving one (None or "") its map, on
    the grid ``moving``, is empty. ``names`` are those of a table. Segmentations keep their own
    names when there is no table, and then get labels of their own; labels too large for tables are
    renumbered, and the name tells what they were. Raises :class:`InputError` with one sentence.
    """
    pairs: list[tuple[Volume, Volume]] = []
    found = dict(names)
    for fixed, other in files:
        own, theirs = _read(fixed), _read(other) if other else None
        if not names and own.segments and (theirs is None or theirs.segments):
            first = 1 + max((int(v.array.max()) for pair in pairs for v in pair), default=0)
            by_name, called = _paired_by_name(own, theirs, moving, first)
            pairs += by_name
            found.update(called)
        elif len(own.layers) > 1 or (theirs is not None and len(theirs.layers) > 1):
            raise InputError(
                "A segmentation with overlapping segments is paired by their names: give both "
                "scans as segmentations (.seg.nrrd), without a table of names."
            )
        else:
            second = _empty(moving) if theirs is None else theirs.layers[0]
            pairs.append((own.layers[0], second))
        check()
    return _renumbered(pairs, found)


def _read(path: str) -> _File:
    layers, about = read_layers(Path(path))
    seen: dict[str, int] = {}
    segments = {}
    # Segment2 comes before Segment10.
    for key in sorted((k for k in about if k.endswith("_ID")), key=lambda k: (len(k), k)):
        stem = key.removesuffix("_ID")
        name = about.get(f"{stem}_Name", "").strip()
        try:
            place = int(about.get(f"{stem}_Layer", 0)), int(about[f"{stem}_LabelValue"])
        except (KeyError, ValueError):
            continue
        if name and place[0] < len(layers):
            segments[name, seen.get(name, 0)] = place
            seen[name] = seen.get(name, 0) + 1
    if len(layers) > 1:
        layers = [replace(layer, sha256=content_hash(path)) for layer in layers]
        if not segments:
            raise InputError(f"'{path}' has several layers, but does not name its segments.")
    return _File(layers, segments)


def _empty(grid: Grid) -> Volume:
    return Volume(np.zeros(grid.shape, np.int32), grid)


def _paired_by_name(
    own: _File, theirs: _File | None, moving: Grid, first: int
) -> tuple[list[tuple[Volume, Volume]], dict[int, str]]:
    """The segments of both files with labels from ``first`` on. What shares its layer in both files
    shares a pair of maps: it overlaps in neither."""
    second = _File([_empty(moving)], {}) if theirs is None else theirs
    keys = list(dict.fromkeys((*own.segments, *second.segments)))
    labels = {key: first + k for k, key in enumerate(keys)}
    groups: dict[tuple[int, int], list] = {}
    for key in keys:
        layers = tuple(f.segments[key][0] if key in f.segments else 0 for f in (own, second))
        groups.setdefault(layers, []).append(key)
    pairs = []
    for layers, members in groups.items():
        pair = []
        for file, layer in zip((own, second), layers, strict=True):
            kept = {file.segments[m][1]: labels[m] for m in members if m in file.segments}
            pair.append(_relabeled(file.layers[layer], kept))
        pairs.append((pair[0], pair[1]))
    called = {label: without_persons(key[0]) or f"label {label}" for key, label in labels.items()}
    return pairs, called


def _renumbered(
    pairs: list[tuple[Volume, Volume]], names: dict[int, str]
) -> tuple[list[tuple[Volume, Volume]], dict[int, str]]:
    """The same with labels 1, 2, 3 ... in their order, if one is so large that a table up to it
    would not fit into memory."""
    maps = [volume for pair in pairs for volume in pair]
    if not maps or max(int(volume.array.max()) for volume in maps) <= _LARGEST:
        return pairs, names
    present = sorted(set().union(*(np.unique(v.array).tolist() for v in maps)) - {0})
    ranks = {label: k for k, label in enumerate(present, start=1)}
    told = {k: names.get(label, f"label {label}") for label, k in ranks.items()}
    return [tuple(_relabeled(volume, ranks) for volume in pair) for pair in pairs], told


def _relabeled(volume: Volume, labels: dict[int, int]) -> Volume:
    """The volume with other labels; those that are not named become background."""
    old = np.array(sorted(labels), dtype=np.int64)
    new = np.array([labels[int(value)] for value in old], np.int32)
    array = np.zeros(volume.array.shape, np.int32)
    for source, target in zip(volume.array, array, strict=True):  # a slice at a time: little memory
        if len(old):
            place = np.minimum(np.searchsorted(old, source), len(old) - 1)
            np.copyto(target, new[place], where=old[place] == source)
    return replace(volume, array=array)
