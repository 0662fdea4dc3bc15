"""Learn2Reg: ``NAME_dataset.json`` beside imagesTr, landmarksTr, keypointsTr, masksTr, labelsTr.

Conventions, checked against github.com/MDL-UzL/L2R (evaluation/evaluation.py, utils.py): pairs are
listed under ``registration_val``, ``registration_test`` or ``training_paired_images``; the other
files of an image have its path with another word in the place of "images"; points are rows of three
voxel indices x, y, z of the NIfTI array, 0 at the center of the first voxel, no header.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...geometry import Grid
from ...volume import read_labels
from ..structures import read_structures
from .pair import Pair, PointPair, by_side, file_pair, stem

#: Our names of the splits -> the keys of the file.
SPLITS = {
    "val": "registration_val",
    "test": "registration_test",
    "train": "training_paired_images",
}


@dataclass(frozen=True)
class Learn2Reg:
    """The pairs of one split of a Learn2Reg task; ``path`` is its JSON file."""

    path: Path
    split: str = "val"

    @property
    def name(self) -> str:
        return f"{self.path.name.removesuffix('.json').removesuffix('_dataset')}"

    @property
    def about(self) -> str:
        return f"Learn2Reg {self.name}, {SPLITS[self.split]}"

    def pairs(self) -> list[Pair]:
        """Pairs named like ``0101_0000-0101_0001``; landmarks (manual) before keypoints."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            listed = content.get(SPLITS[self.split]) or []
            entries = [(entry["fixed"], entry["moving"]) for entry in listed]
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(f"'{self.path}' is not a Learn2Reg dataset file.") from error
        if not entries:
            raise InputError(f"'{self.path}' lists no pairs under '{SPLITS[self.split]}'.")
        return [self._pair(*entry) for entry in entries]

    def _pair(self, fixed: str, moving: str) -> Pair:
        images = [self.path.parent / part for part in (fixed, moving)]
        for image in images:
            if not image.is_file():
                raise InputError(f"'{image}' does not exist, but '{self.path}' lists it.")
        points = self._others(fixed, moving, "landmarks", ".csv")
        points = points or self._others(fixed, moving, "keypoints", ".csv")
        labels = self._others(fixed, moving, "labels", ".nii.gz")
        masks = self._others(fixed, moving, "masks", ".nii.gz")
        short = [stem(image).removeprefix(f"{self.name}_") for image in images]
        return file_pair(
            "-".join(short),
            *images,
            read_landmarks=partial(read_index_pair, *points) if points else None,
            read_structures=(lambda: tuple(map(read_structures, labels))) if labels else None,
            read_masks=(lambda: tuple(map(read_labels, masks))) if masks else None,
            more_files={
                **by_side("landmarks", points),
                **by_side("labels", labels),
                **by_side("mask", masks),
            },
        )

    def _others(self, fixed: str, moving: str, word: str, ending: str) -> tuple[Path, Path] | None:
        """The two files of another kind, when both are there."""
        paths = tuple(
            self.path.parent / part.replace("images", word).replace(".nii.gz", ending)
            for part in (fixed, moving)
        )
        return paths if all(path.is_file() for path in paths) else None


def read_index_pair(fixed: Path, moving: Path, fixed_grid: Grid, moving_grid: Grid) -> PointPair:
    """Two CSV files of 0-based voxel indices (N, 3) as LPS mm."""
    points = [
        grid.to_physical(read_rows(path, 3))
        for path, grid in ((fixed, fixed_grid), (moving, moving_grid))
    ]
    if len(points[0]) != len(points[1]):
        raise InputError(f"'{fixed}' and '{moving}' hold different numbers of points.")
    return points[0], points[1]


def read_rows(path: Path, columns: int) -> np.ndarray:
    """Comma-separated numbers without a header: (N, columns). Raises :class:`InputError`."""
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' does not hold rows of {columns} numbers.") from error
    if rows.ndim != 2 or rows.shape[1] != columns or not np.isfinite(rows).all():
        raise InputError(f"'{path}' does not hold rows of {columns} numbers.")
    return rows
