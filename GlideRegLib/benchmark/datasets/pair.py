"""What a data set gives: pairs, read when they are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import InputError
from ...geometry import Grid
from ...volume import Volume, content_hash, read_volume
from ..structures import Structures

#: Corresponding fixed and moving points (N, 3), LPS mm.
PointPair = tuple[np.ndarray, np.ndarray]
#: What the two files of images are for.
IMAGES = ("fixed image", "moving image")
PointReader = Callable[[Grid, Grid], PointPair]


@dataclass(frozen=True)
class Pair:
    """Two images to be registered, and what their registration can be measured with.

    Everything is a function without arguments, called when it is needed; those of points get the
    grids of the fixed and the moving image, because most data sets store voxel indices. What a data
    set does not have is None. ``files`` (what each is for -> file or folder) decide whether old
    results still count; ``stems`` name the images in a folder of structures.
    """

    identifier: str
    read_fixed: Callable[[], Volume]
    read_moving: Callable[[], Volume]
    read_landmarks: PointReader | None = None
    read_nodules: PointReader | None = None
    read_structures: Callable[[], tuple[Structures, Structures]] | None = None
    read_masks: Callable[[], tuple[Volume, Volume]] | None = None
    files: dict[str, Path] = field(default_factory=dict)
    stems: tuple[str, str] | None = None

    def fingerprint(self) -> str:
        """sha256 over the contents of the pair's files, by what they are for; of its name alone
        when it is made in memory."""
        content = {role: hash_of_all(path) for role, path in self.files.items()}
        text = json.dumps([self.identifier, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def images_fingerprint(self) -> str:
        """The same of the images alone, where they are files."""
        images = {role: path for role, path in self.files.items() if role in IMAGES}
        return replace(self, files=images or self.files).fingerprint()


def hash_of_all(path: Path) -> str:
    """sha256 of a file, or of all files in a folder and below with their names there. Raises
    :class:`InputError` when it does not exist."""
    if not path.exists():
        raise InputError(f"'{path}' does not exist.")
    if not path.is_dir():
        return content_hash(path)
    total = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        total.update(f"{file.relative_to(path).as_posix()} {content_hash(file)} ".encode())
    return total.hexdigest()


class Dataset(Protocol):
    """A data set: its name in the tables, what it is, and its pairs."""

    name: str
    about: str

    def pairs(self) -> list[Pair]:
        """All pairs. Raises :class:`InputError` when files that must be there are missing."""
        ...


def by_side(what: str, sides: Sequence[Path | Sequence[Path]] | None) -> dict[str, Path]:
    """The fixed and the moving file (or files) by what they are for: "fixed landmarks", and "fixed
    landmarks 2" where there are more; nothing for None."""
    found = {}
    for side, given in zip(("fixed", "moving"), sides or ((), ()), strict=True):
        paths = [given] if isinstance(given, Path) else given
        for number, path in enumerate(paths, start=1):
            found[f"{side} {what}" + (f" {number}" if number > 1 else "")] = path
    return found


def file_pair(identifier: str, fixed: Path, moving: Path, **readers: object) -> Pair:
    """A pair of image files; ``readers`` are the other fields of :class:`Pair`, ``more_files`` its
    ``files`` beside the images."""
    more = readers.pop("more_files", {})
    return Pair(
        identifier,
        lambda: read_volume(fixed),
        lambda: read_volume(moving),
        files={**dict(zip(IMAGES, (fixed, moving), strict=True)), **more},
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
