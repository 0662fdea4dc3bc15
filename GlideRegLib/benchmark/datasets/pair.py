"""What a data set gives: pairs, read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...geometry import Grid
from ...volume import Volume, content_hash, read_volume
from ..structures import Structures

#: Corresponding fixed and moving points (N, 3), LPS mm.
PointPair = tuple[np.ndarray, np.ndarray]
PointReader = Callable[[Grid, Grid], PointPair]


@dataclass(frozen=True)
class Pair:
    """Two images to be registered, and what their registration can be measured with.

    Everything is a function without arguments, called when it is needed; those of points get the
    grids of the fixed and the moving image, because most data sets store voxel indices. What a data
    set does not have is None. ``files`` decide whether old results still count, ``stems`` name the
    images in a folder of structures.
    """

    identifier: str
    read_fixed: Callable[[], Volume]
    read_moving: Callable[[], Volume]
    read_landmarks: PointReader | None = None
    read_nodules: PointReader | None = None
    read_structures: Callable[[], tuple[Structures, Structures]] | None = None
    read_masks: Callable[[], tuple[Volume, Volume]] | None = None
    files: tuple[Path, ...] = ()
    stems: tuple[str, str] | None = None

    def fingerprint(self) -> str:
        """sha256 over the contents of the pair's files; of its name when it is made in memory."""
        total = hashlib.sha256(self.identifier.encode())
        for path in self.files:
            total.update(content_hash(path).encode())
        return total.hexdigest()


class Dataset(Protocol):
    """A data set: its name in the tables, what it is, and its pairs."""

    name: str
    about: str

    def pairs(self) -> list[Pair]:
        """All pairs. Raises :class:`InputError` when files that must be there are missing."""
        ...


def file_pair(identifier: str, fixed: Path, moving: Path, **readers: object) -> Pair:
    """A pair of image files; ``readers`` are the other fields of :class:`Pair`."""
    more = tuple(readers.pop("more_files", ()))
    return Pair(
        identifier,
        lambda: read_volume(fixed),
        lambda: read_volume(moving),
        files=(fixed, moving, *more),
        stems=(stem(fixed), stem(moving)),
        **readers,
    )


def stem(path: Path) -> str:
    """The file name without its endings."""
    name = path.name
    for ending in (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".img"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
