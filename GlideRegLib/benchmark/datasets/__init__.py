"""Data sets of the literature behind one interface: :func:`open_dataset` tells which it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ..structures import Structures, read_structures
from .dirlab import DirLab
from .learn2reg import SPLITS, Learn2Reg
from .lung250m import Lung250M
from .manifest import Manifest
from .pair import Dataset, Pair, by_side
from .samples import SAMPLES, Samples

__all__ = [
    "SAMPLES",
    "SPLITS",
    "Dataset",
    "Pair",
    "open_dataset",
    "structure_places",
    "with_structures",
]


def open_dataset(name: str, split: str | None = None, data: Path | None = None) -> Dataset:
    """The data set of a name of :data:`SAMPLES`, or of a path: a CSV manifest, a Learn2Reg
    ``*_dataset.json`` or its folder, the folder of DIR-Lab 4DCT, of COPDgene, or of Lung250M-4B.

    ``split``: val, test or train, where there is a choice (Learn2Reg: val; Lung250M-4B: test).
    ``data``: folder of the real sample data. Raises :class:`InputError` with one sentence.
    """
    if name in SAMPLES:
        return Samples(name, data)
    if split is not None and split not in SPLITS:
        raise InputError(f"There is no split '{split}'; choose from {', '.join(SPLITS)}.")
    path = Path(name)
    if path.is_file() and path.suffix.lower() == ".csv":
        return Manifest(path)
    if path.is_file() and path.suffix.lower() == ".json":
        return Learn2Reg(path, split or "val")
    if path.is_dir():
        found = _of_folder(path, split)
        if found is not None:
            return found
    raise InputError(
        f"'{name}' is no data set that is known here; give a CSV manifest, a Learn2Reg "
        "'*_dataset.json', a folder of DIR-Lab 4DCT, COPDgene or Lung250M-4B, or one of "
        f"{', '.join(SAMPLES)}."
    )


def _of_folder(folder: Path, split: str | None) -> Dataset | None:
    listed = sorted(folder.glob("*_dataset.json"))
    if len(listed) > 1:
        raise InputError(f"'{folder}' holds several '*_dataset.json'; give one of them.")
    if listed:
        return Learn2Reg(listed[0], split or "val")
    below = [path.name.lower() for path in folder.iterdir() if path.is_dir()]
    for kind, pattern in (("4dct", r"case\d+(pack|deploy)?"), ("copd", r"copd\d+")):
        if any(re.fullmatch(pattern, name) for name in below):
            return DirLab(folder, kind)
    if {"imagestr", "imagests"} & set(below):
        return Lung250M(folder, split or "test")
    return None


@dataclass(frozen=True)
class StructurePlaces:
    """Where a folder holds the structures of a pair: below the ``pair``'s name, under the names of
    its ``images``, or ``alone``, where nothing says which pair they belong to."""

    kind: str
    fixed: Path
    moving: Path
    names: Path | None


def structure_places(pair: Pair, folder: Path) -> StructurePlaces | None:
    """Where a folder holds the structures of a pair; None when both are not there."""
    own = folder / pair.identifier if Path(pair.identifier).name == pair.identifier else folder
    options = [("pair", own, ("fixed", "moving"))] if own != folder else []
    options += [("images", folder, pair.stems)] if pair.stems else []
    for kind, place, names in (*options, ("alone", folder, ("fixed", "moving"))):
        paths = [_structure_path(place, name) for name in names]
        if None not in paths:
            tables = (place / "names.csv", folder / "names.csv")
            table = next((path for path in tables if path.is_file()), None)
            return StructurePlaces(kind, *paths, table)
    return None


def with_structures(pair: Pair, folder: Path | None) -> Pair:
    """The pair with structures from a folder that holds, for each image, a folder of
    TotalSegmentator's masks or a label map (with ``names.csv`` for all): ``PAIR/fixed`` and
    ``PAIR/moving``, or under the images' names, or ``fixed`` and ``moving`` for a single pair.

    A pair of which both are not there is returned as it is.
    """
    found = structure_places(pair, folder) if folder is not None else None
    if found is None:
        return pair
    both, table = (found.fixed, found.moving), found.names

    def read() -> tuple[Structures, Structures]:
        return tuple(read_structures(path, table) for path in both)

    files = {**pair.files, **by_side("structures", both)}
    if table is not None:
        files["names of the structures"] = table
    return replace(pair, read_structures=read, files=files)


def _structure_path(folder: Path, stem: str) -> Path | None:
    candidates = (folder / stem, folder / f"{stem}.nii.gz")
    return next((path for path in candidates if path.exists()), None)
