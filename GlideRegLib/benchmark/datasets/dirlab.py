"""DIR-Lab 4DCT and COPDgene: raw 16-bit voxels without a header, landmarks as text.

Conventions, checked against public readers of these files (DIR-QA of deshanyang, the copd scripts
of multimodallearning/Lung250M-4B, and converters that compare with the published errors):

* ``.img`` is little-endian int16 in the order z, y, x; size and spacing stand in tables only;
* slice 1 is the *uppermost*: the slices are turned here, so that z points to the head as in LPS;
* values are HU + 1024, and -2000 outside the scanner's circle;
* landmarks are whole voxel numbers x, y, z that begin at **1**, in the file's own slice order.

4DCT: T00 (inhale) is fixed, T50 (exhale) moving. COPDgene: inhale is fixed, exhale moving. Names of
folders and files differ from case to case in capitals and endings; they are found all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...geometry import Grid
from ...volume import Volume
from .pair import IMAGES, Pair, PointPair

Size = tuple[int, int, int]
#: Case -> size (x, y, z) in voxels, spacing in the plane in mm; slices are 2.5 mm apart.
FOUR_D_CT: dict[int, tuple[Size, float]] = {
    1: ((256, 256, 94), 0.97),
    2: ((256, 256, 112), 1.16),
    3: ((256, 256, 104), 1.15),
    4: ((256, 256, 99), 1.13),
    5: ((256, 256, 106), 1.10),
    6: ((512, 512, 128), 0.97),
    7: ((512, 512, 136), 0.97),
    8: ((512, 512, 128), 0.97),
    9: ((512, 512, 128), 0.97),
    10: ((512, 512, 120), 0.97),
}
COPD_GENE: dict[int, tuple[Size, float]] = {
    1: ((512, 512, 121), 0.625),
    2: ((512, 512, 102), 0.645),
    3: ((512, 512, 126), 0.652),
    4: ((512, 512, 126), 0.590),
    5: ((512, 512, 131), 0.647),
    6: ((512, 512, 119), 0.633),
    7: ((512, 512, 112), 0.625),
    8: ((512, 512, 115), 0.586),
    # Some tables say 0.644. The landmarks speak for 340 mm / 512: with it the 300 pairs lie 14.86
    # mm apart, the known figure of this case before registration; with 0.644 it is 14.66 mm.
    9: ((512, 512, 116), 0.664),
    10: ((512, 512, 135), 0.742),
}
_FILES = (*IMAGES, "fixed landmarks", "moving landmarks")
_SLICE_MM = 2.5
_HU_OFFSET = 1024
_AIR_HU = -1024.0


@dataclass(frozen=True)
class DirLab:
    """The cases below a folder; ``kind`` is "4dct" (Case1Pack, ...) or "copd" (copd1, ...)."""

    folder: Path
    kind: str

    @property
    def name(self) -> str:
        return {"4dct": "DIR-Lab 4DCT", "copd": "DIR-Lab COPDgene"}[self.kind]

    @property
    def about(self) -> str:
        return f"{self.name}, 300 landmarks a case, inhale fixed, exhale moving"

    def pairs(self) -> list[Pair]:
        """The cases whose folders are there, ``case1``, ... or ``copd1``, ... A case that lacks a
        file says so when it is read, so that it does not keep the others from being used."""
        table = FOUR_D_CT if self.kind == "4dct" else COPD_GENE
        found = [self._pair(n, *table[n]) for n in table if self._case_folder(n) is not None]
        if not found:
            raise InputError(f"'{self.folder}' holds no case of {self.name}.")
        return found

    def _case_folder(self, number: int) -> Path | None:
        pattern = rf"case{number}(pack|deploy)?" if self.kind == "4dct" else rf"copd{number}"
        return next(
            (
                path
                for path in sorted(self.folder.iterdir())
                if path.is_dir() and re.fullmatch(pattern, path.name, re.I)
            ),
            None,
        )

    def _pair(self, number: int, size: Size, spacing: float) -> Pair:
        folder = self._case_folder(number)
        if self.kind == "4dct":
            name = f"case{number}"
            images = [rf"case{number}_{phase}.*\.img" for phase in ("T00", "T50")]
            points = [rf"case{number}_.*300_{phase}_xyz.*\.txt" for phase in ("T00", "T50")]
        else:
            name = f"copd{number}"
            images = [rf"copd{number}_{phase}BHCT\.img" for phase in "ie"]
            points = [rf"copd{number}_300_{phase}BH_xyz.*\.txt" for phase in "ie"]
        try:
            files = [_find(folder, pattern) for pattern in (*images, *points)]
        except InputError as error:
            return Pair(name, partial(_refuse, error), partial(_refuse, error))
        steps = (spacing, spacing, _SLICE_MM)
        read = partial(read_raw, size=size, spacing=steps)
        return Pair(
            name,
            partial(read, files[0]),
            partial(read, files[1]),
            read_landmarks=partial(_read_landmarks, files[2], files[3]),
            files=dict(zip(_FILES, files, strict=True)),
            stems=(files[0].stem, files[1].stem),
        )


def _refuse(error: InputError) -> Volume:
    raise error


def read_raw(path: Path, size: Size, spacing: tuple[float, float, float]) -> Volume:
    """An ``.img`` file as HU, its slices turned so that z points to the head; origin 0.

    Raises :class:`InputError` when the file has not exactly the size that its case has.
    """
    expected = 2 * int(np.prod(size))
    if path.stat().st_size != expected:
        raise InputError(
            f"'{path}' has {path.stat().st_size} bytes; {expected} belong to "
            f"{' x '.join(map(str, size))} voxels of this case."
        )
    values = np.fromfile(path, dtype="<i2").reshape(size[::-1])[::-1].astype(np.float32)
    values -= _HU_OFFSET
    np.maximum(values, _AIR_HU, out=values)
    return Volume(np.ascontiguousarray(values), Grid(size, spacing, (0.0, 0.0, 0.0)))


def _read_landmarks(fixed: Path, moving: Path, fixed_grid: Grid, moving_grid: Grid) -> PointPair:
    points = [
        grid.to_physical(_turned(read_voxel_numbers(path), grid))
        for path, grid in ((fixed, fixed_grid), (moving, moving_grid))
    ]
    if len(points[0]) != len(points[1]):
        raise InputError(f"'{fixed}' and '{moving}' hold different numbers of landmarks.")
    return points[0], points[1]


def _turned(numbers: np.ndarray, grid: Grid) -> np.ndarray:
    """Voxel numbers of the file (from 1) as indices of the turned image (from 0)."""
    index = numbers - 1
    index[:, 2] = grid.size[2] - numbers[:, 2]
    return index


def read_voxel_numbers(path: Path) -> np.ndarray:
    """The first three columns of a landmark file (tabs or spaces): (N, 3), beginning at 1."""
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' does not hold rows of voxel numbers.") from error
    if rows.ndim != 2 or rows.shape[1] < 3 or rows.min() < 1:
        raise InputError(f"'{path}' does not hold rows of voxel numbers that begin at 1.")
    return rows[:, :3]


def _find(folder: Path, pattern: str) -> Path:
    """The file below a folder whose whole name matches, whatever its capitals."""
    matching = [p for p in sorted(folder.rglob("*")) if re.fullmatch(pattern, p.name, re.I)]
    if not matching:
        raise InputError(f"'{folder}' lacks a file like '{pattern}' (a regular expression).")
    return matching[0]
