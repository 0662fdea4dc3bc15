"""The paired regions of two images as files: two label maps with the same numbers, and a table."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..volume import Volume, write_volume


@dataclass(frozen=True)
class RegionPair:
    """One pair: its number in the label maps, the cosine of the prototypes, the volumes in ml, and
    the centroids in LPS mm, each in its own image."""

    number: int
    similarity: float
    fixed_ml: float
    moving_ml: float
    fixed_center: tuple[float, float, float]
    moving_center: tuple[float, float, float]


@dataclass(frozen=True)
class RegionPairs:
    """Label maps int16 on the grids of the two images, 0 where no region is; a number means the
    same region in both. ``table``: the pairs, most similar first."""

    fixed: Volume
    moving: Volume
    table: tuple[RegionPair, ...]

    @classmethod
    def measured(cls, fixed: Volume, moving: Volume, similarities: list[float]) -> RegionPairs:
        """With the table of label maps whose number k + 1 is the pair of ``similarities[k]``.

        A pair whose region has no voxel in one of the images is taken out of the other one too; the
        numbers stay without gaps.
        """
        facts = [_facts(volume, len(similarities)) for volume in (fixed, moving)]
        kept = [k for k, both in enumerate(zip(*facts, strict=True)) if all(both)]
        new = np.zeros(len(similarities) + 1, np.int16)
        new[np.asarray(kept, int) + 1] = np.arange(1, len(kept) + 1)
        maps = [Volume(new[volume.array], volume.grid) for volume in (fixed, moving)]
        rows = []
        for number, k in enumerate(kept, start=1):
            (fixed_ml, first), (moving_ml, second) = facts[0][k], facts[1][k]
            similarity = round(similarities[k], 4)
            rows.append(RegionPair(number, similarity, fixed_ml, moving_ml, first, second))
        return cls(*maps, tuple(rows))

    def facts(self) -> list[dict]:
        """The table as plain values for ``result.json``."""
        return [asdict(pair) for pair in self.table]

    def write(self, folder: Path, suffix: str = ".nii.gz") -> None:
        """regions_fixed and regions_moving (with ``suffix``) and regions.csv, into a folder."""
        write_volume(folder / f"regions_fixed{suffix}", self.fixed)
        write_volume(folder / f"regions_moving{suffix}", self.moving)
        with (folder / "regions.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            axes = [f"{name}_{axis}_lps_mm" for name in ("fixed", "moving") for axis in "xyz"]
            writer.writerow(["region", "similarity", "fixed_ml", "moving_ml", *axes])
            for pair in self.table:
                volumes = (pair.fixed_ml, pair.moving_ml)
                centers = (*pair.fixed_center, *pair.moving_center)
                writer.writerow([pair.number, pair.similarity, *volumes, *centers])


def _facts(volume: Volume, count: int) -> list[tuple[float, tuple[float, float, float]] | None]:
    """(ml, centroid) of the labels 1 to ``count``; None for those without a voxel."""
    labels = volume.array
    index = np.nonzero(labels)
    values = labels[index]
    voxels = np.bincount(values, minlength=count + 1)[1:]
    sums = [np.bincount(values, weights=axis, minlength=count + 1)[1:] for axis in index[::-1]]
    voxel_ml = float(np.prod(volume.grid.spacing)) / 1000
    found: list[tuple[float, tuple[float, float, float]] | None] = []
    for k, n in enumerate(voxels):
        if not n:
            found.append(None)
            continue
        middle = np.array([[axis[k] / n for axis in sums]])
        x, y, z = (round(float(v), 2) for v in volume.grid.to_physical(middle)[0])
        found.append((round(float(n) * voxel_ml, 3), (x, y, z)))
    return found
