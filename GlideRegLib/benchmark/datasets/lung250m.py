"""Lung250M-4B: imagesTr and imagesTs with case_NNN_1.nii.gz (fixed) and case_NNN_2.nii.gz (moving).

Conventions, checked against github.com/multimodallearning/Lung250M-4B (README.md,
evaluation/evaluate.py, corrfield/corrfield.py): 1 mm isotropic; cases 104 to 113 (COPDgene) are the
test set; correspondences are rows of six numbers, fixed index x, y, z and moving index x, y, z of
the NIfTI arrays. The validation and test landmarks are tensors (N, 6) in ``lms_validation.pth`` of
that repository, put beside the images; training cases have ``corrfieldTr/case_NNN.csv``.

Indices are read as 0 at the center of the first voxel, as corrField writes them; the evaluation
script there reads them half a voxel lower in both images. The same displacement is compared either
way, half a millimeter apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...geometry import Grid
from ...volume import read_labels
from .learn2reg import read_rows
from .pair import Pair, PointPair, by_side, file_pair

_TEST = set(range(104, 114))
#: Of the README; it lists 113 to 123, but 113 belongs to the test set.
_VALIDATION = {2, 8, 54, 55, 56, 94, 97, *range(114, 124)}
_LANDMARKS = ("lms_validation.pth", "evaluation/lms_validation.pth")


@dataclass(frozen=True)
class Lung250M:
    """The pairs of one split ("test", "val" or "train") below the data set's folder."""

    folder: Path
    split: str = "test"

    @property
    def name(self) -> str:
        return "Lung250M-4B"

    @property
    def about(self) -> str:
        return f"Lung250M-4B, split {self.split}, 1 mm, case_NNN_1 fixed, case_NNN_2 moving"

    def pairs(self) -> list[Pair]:
        """The cases of the split of which both images are there."""
        part = "imagesTr" if self.split == "train" else "imagesTs"
        found = []
        for fixed in sorted((self.folder / part).glob("*_1.nii.gz")):
            match = re.fullmatch(r"(?:case_)?(\d{3})_1\.nii\.gz", fixed.name)
            if match is None or not self._belongs(int(match[1])):
                continue
            moving = fixed.with_name(fixed.name.replace("_1.nii.gz", "_2.nii.gz"))
            if not moving.is_file():
                raise InputError(f"'{moving}' does not exist, but its fixed image does.")
            found.append(self._pair(match[1], fixed, moving))
        if not found:
            raise InputError(f"'{self.folder / part}' holds no pair of the split {self.split}.")
        return found

    def _belongs(self, number: int) -> bool:
        if self.split == "test":
            return number in _TEST
        return self.split == "train" or number in _VALIDATION

    def _pair(self, number: str, fixed: Path, moving: Path) -> Pair:
        masks = [
            self.folder / image.parent.name.replace("images", "masks") / image.name
            for image in (fixed, moving)
        ]
        csv = self.folder / "corrfieldTr" / f"case_{number}.csv"
        rows, more = None, {}
        if str(int(number)) in self._tensors:
            rows = partial(self._tensors.get, str(int(number)))
            more = {"landmarks": self._landmark_file}
        elif csv.is_file():
            rows, more = partial(read_rows, csv, 6), {"landmarks": csv}
        masked = all(mask.is_file() for mask in masks)
        return file_pair(
            f"case_{number}",
            fixed,
            moving,
            read_landmarks=partial(_points, rows) if rows else None,
            read_masks=(lambda: tuple(map(read_labels, masks))) if masked else None,
            more_files={**more, **(by_side("mask", masks) if masked else {})},
        )

    @cached_property
    def _landmark_file(self) -> Path | None:
        files = (self.folder / name for name in _LANDMARKS)
        return next((path for path in files if path.is_file()), None)

    @cached_property
    def _tensors(self) -> dict[str, np.ndarray]:
        """Case number -> (N, 6) of the landmark file; nothing but tensors is read from it."""
        if self._landmark_file is None:
            return {}
        import torch

        try:
            content = torch.load(self._landmark_file, map_location="cpu", weights_only=True)
            return {str(name): np.asarray(rows, dtype=float) for name, rows in content.items()}
        except Exception as error:
            raise InputError(f"'{self._landmark_file}' does not hold tensors by case.") from error


def _points(rows: object, fixed_grid: Grid, moving_grid: Grid) -> PointPair:
    """Rows of six indices as LPS mm."""
    values = np.asarray(rows())
    if values.ndim != 2 or values.shape[1] != 6:
        raise InputError("The correspondences of Lung250M-4B must have six columns.")
    return fixed_grid.to_physical(values[:, :3]), moving_grid.to_physical(values[:, 3:])
