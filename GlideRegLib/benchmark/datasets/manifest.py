"""A plain CSV file that lists pairs: for data of one's own.

One row per pair; paths are relative to the file. Columns (``fixed`` and ``moving`` must be there,
the others may be missing or empty): ``id``; ``fixed``, ``moving`` (images, or DICOM folders);
``fixed_landmarks``, ``moving_landmarks`` and ``fixed_nodules``, ``moving_nodules`` (any landmark
format of this library, row k belongs to row k; several files apart by ``;``); ``fixed_labels``,
``moving_labels`` (a label map or a folder of TotalSegmentator's masks) with ``names`` (CSV: id,
name); ``fixed_mask``, ``moving_mask``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...geometry import Grid
from ...landmarks import read_landmark_pair
from ...volume import read_labels
from ..structures import read_structures
from .pair import Pair, PointPair, by_side, file_pair

_PAIRED = ("landmarks", "nodules", "labels", "mask")
_COLUMNS = {"id", "fixed", "moving", "names"} | {
    f"{side}_{kind}" for side in ("fixed", "moving") for kind in _PAIRED
}


@dataclass(frozen=True)
class Manifest:
    """The pairs that a CSV file lists."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def about(self) -> str:
        return "pairs of a CSV file"

    def pairs(self) -> list[Pair]:
        """One pair per row. Raises :class:`InputError` that names the row."""
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"'{self.path}' cannot be read as a text file.") from error
        rows = list(csv.DictReader(text.splitlines()))
        columns = set(rows[0]) if rows else set()
        if not {"fixed", "moving"} <= columns:
            raise InputError(f"'{self.path}' needs a header with 'fixed' and 'moving', and rows.")
        unknown = sorted(str(name) for name in columns - _COLUMNS)
        if unknown:
            raise InputError(
                f"'{self.path}' has unknown columns: {', '.join(unknown)}; known are "
                f"{', '.join(sorted(_COLUMNS))}."
            )
        found = [self._pair(number, row) for number, row in enumerate(rows, start=1)]
        names = [pair.identifier for pair in found]
        if len(set(names)) < len(names):
            raise InputError(f"'{self.path}' gives one id to two pairs.")
        return found

    def _pair(self, number: int, row: dict[str, str | None]) -> Pair:
        cells = {name: (value or "").strip() for name, value in row.items() if name}
        files = {
            kind: (self._paths(cells, f"fixed_{kind}"), self._paths(cells, f"moving_{kind}"))
            for kind in _PAIRED
        }
        images = [self._paths(cells, side) for side in ("fixed", "moving")]
        wrong = [kind for kind, (a, b) in files.items() if len(a) != len(b)]
        if wrong or [len(paths) for paths in images] != [1, 1]:
            what = wrong[0] if wrong else "image"
            raise InputError(f"Row {number} of '{self.path}' needs a fixed and a moving {what}.")
        (fixed,), (moving,) = images
        points = {kind: files[kind] for kind in ("landmarks", "nodules")}
        labels, masks = ([a[0], b[0]] if a else None for a, b in (files["labels"], files["mask"]))
        table = next(iter(self._paths(cells, "names")), None)
        more = {} if table is None else {"names of the labels": table}
        for kind, sides in files.items():
            more.update(by_side(kind, sides))
        return file_pair(
            cells.get("id") or f"pair{number}",
            fixed,
            moving,
            **{f"read_{k}": partial(_points, *v) if v[0] else None for k, v in points.items()},
            read_structures=(
                (lambda: tuple(read_structures(path, table) for path in labels)) if labels else None
            ),
            read_masks=(lambda: tuple(map(read_labels, masks))) if masks else None,
            more_files=more,
        )

    def _paths(self, cells: dict[str, str], column: str) -> list[Path]:
        paths = [self.path.parent / part.strip() for part in cells.get(column, "").split(";")]
        paths = [path for path in paths if path != self.path.parent]
        for path in paths:
            if not path.exists():
                raise InputError(f"'{path}' does not exist, but '{self.path}' lists it.")
        return paths


def _points(fixed: list[Path], moving: list[Path], *grids: Grid) -> PointPair:
    """The points of all files, LPS mm."""
    pairs = [read_landmark_pair(a, b, *grids) for a, b in zip(fixed, moving, strict=True)]
    return tuple(np.vstack([pair[side].points for pair in pairs]) for side in (0, 1))
