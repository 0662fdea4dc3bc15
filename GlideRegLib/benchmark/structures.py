"""Label maps as the structures that are compared: the six of the paper, or whatever there is.

TotalSegmentator's names are mapped by ``structures.json``. Structures may overlap (vessels lie in
the lung), so each is its own mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from ..assurance.names import read_names
from ..errors import InputError
from ..volume import Volume, read_labels

#: The six structures of the paper's Mean6, in its order.
SIX = ("lung", "heart", "skeleton", "airway", "liver", "lung vessels")


@cache
def mapping() -> dict[str, tuple[str, ...]]:
    """Structure -> patterns of label names, from ``structures.json``."""
    text = resources.files(__package__).joinpath("structures.json").read_text(encoding="utf-8")
    return {name: tuple(parts) for name, parts in json.loads(text)["structures"].items()}


def structure_of(name: str) -> str | None:
    """Which of the six a label name belongs to; None for any other."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    for structure, patterns in mapping().items():
        if any(fnmatchcase(plain, pattern.replace(" ", "_")) for pattern in patterns):
            return structure
    return None


@dataclass(frozen=True)
class Layer:
    """One label map with what its values mean: value -> structure."""

    volume: Volume
    structures: dict[int, str]


@dataclass(frozen=True)
class LabelMap:
    """A label map (integers, 0 is background) with the names of its values.

    Labels that make up one of the six are joined; without any such name each label stays a
    structure of its own, under its name or ``label N``.
    """

    volume: Volume
    names: dict[int, str]

    def check(self) -> None:
        """Nothing: it is in memory."""

    def layers(self) -> Iterator[Layer]:
        """The map once, with values that stand for structures."""
        values = [int(v) for v in np.unique(self.volume.array) if v]
        names = {value: self.names.get(value, f"label {value}") for value in values}
        found = {value: structure_of(name) for value, name in names.items()}
        if any(found.values()):
            names = {value: name for value, name in found.items() if name}
        order = sorted(set(names.values()))
        table = np.zeros(max(values, default=0) + 1, np.uint8 if len(order) < 256 else np.int32)
        for value, name in names.items():
            table[value] = order.index(name) + 1
        joined = Volume(table[self.volume.array], self.volume.grid)
        yield Layer(joined, dict(enumerate(order, start=1)))


@dataclass(frozen=True)
class MaskFolder:
    """A folder of masks, one structure each, as TotalSegmentator writes it: ``liver.nii.gz``."""

    folder: Path

    def check(self) -> None:
        """Reads the headers. Raises :class:`InputError` when no name is known, and for files that
        are no images."""
        import SimpleITK as sitk

        for path in (path for paths in self._files().values() for path in paths):
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            try:
                reader.ReadImageInformation()
            except RuntimeError as error:
                raise InputError(f"'{path}' cannot be read as an image.") from error

    def layers(self) -> Iterator[Layer]:
        """One layer per structure. Raises :class:`InputError` when no name is known."""
        for structure, paths in self._files().items():
            masks = [mask for mask in map(_read_mask, paths) if mask is not None]
            if masks:
                yield Layer(_union(masks), {1: structure})

    def _files(self) -> dict[str, list[Path]]:
        """Structure -> its files."""
        files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.glob("*.nii.gz")):
            structure = structure_of(path.name.removesuffix(".nii.gz"))
            if structure is not None:
                files.setdefault(structure, []).append(path)
        if not files:
            raise InputError(
                f"'{self.folder}' holds no masks of known structures (such as 'liver.nii.gz')."
            )
        return files


Structures = LabelMap | MaskFolder


def read_structures(path: str | Path, names: str | Path | None = None) -> Structures:
    """A label map with its names (a CSV file, see ``assurance.names``), or a folder of masks."""
    if Path(path).is_dir():
        return MaskFolder(Path(path))
    return LabelMap(read_labels(path), read_names(names) if names else {})


def _read_mask(path: Path) -> Volume | None:
    """One mask; None when it is empty (TotalSegmentator writes those for what is not in view)."""
    try:
        return read_labels(path)
    except InputError as error:
        if "is empty" in str(error):
            return None
        raise


def _union(masks: Sequence[Volume]) -> Volume:
    first = masks[0]
    if any(mask.array.shape != first.array.shape for mask in masks):
        raise InputError("The masks of one structure have different shapes.")
    joined = np.any([mask.array > 0 for mask in masks], axis=0)
    return Volume(joined.astype(np.uint8), first.grid)
