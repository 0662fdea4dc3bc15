"""Nodules as they were marked: points or voxels in one image, each with an identity of its own.

They are read from a landmark file (one point, one nodule), a label map or segmentation, or the
``nodules.json`` of an earlier run, whose identities are kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..landmarks import EXTENSIONS, read_landmarks
from ..volume import Volume, read_labels

if TYPE_CHECKING:
    from .measures import Measurement
    from .records import Method

#: A point in LPS mm.
Point = tuple[float, float, float]

#: Connected parts of a one-label map with fewer voxels are taken for specks.
_SMALLEST_VOXELS = 3
#: How far a known nodule may have moved and still be the same one, mm.
_SAME_MM = 3.0
#: The word in the place of a nodule file: the scan was looked through, and holds none.
NO_NODULES = "none"


def new_identifier() -> str:
    """A fresh identity (UUID, version 4): random on purpose, unique over patients and machines."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Nodule:
    """One marked nodule.

    ``center`` is in LPS mm of its own image, ``mask`` (uint8, 1 inside) its voxels on a grid
    aligned with that image, cropped; None for a nodule that is only a point. ``identifier`` is a
    UUID that stays with the nodule through all time points. A nodule that nobody marked in this
    image but that was carried here from an earlier one is not ``located``: its center is known to
    ``uncertainty_mm`` only, and it is not measured there. ``measurement``: what an earlier run
    measured in this image, by ``method``: it is not measured anew.
    """

    name: str
    center: Point
    mask: Volume | None = None
    identifier: str = field(default_factory=new_identifier)
    located: bool = True
    uncertainty_mm: float = 0.0
    measurement: Measurement | None = None
    method: Method = ""


@dataclass(frozen=True)
class NoduleList:
    """The nodules of a file, and notes on how it was understood (they name no file)."""

    nodules: tuple[Nodule, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.nodules)


def as_point(values: Sequence[float] | np.ndarray) -> Point:
    """Three plain floats from any sequence of three numbers."""
    x, y, z = (float(value) for value in values)
    return x, y, z


def nodules_from_points(points: np.ndarray, names: Sequence[str] | None = None) -> list[Nodule]:
    """Nodules from LPS points (N, 3) in mm; without names they are numbered from 1.

    Raises :class:`InputError` when names and points do not fit together.
    """
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    names = [str(k + 1) for k in range(len(points))] if names is None else list(names)
    if len(names) != len(points):
        raise InputError(f"{len(points)} nodules were given with {len(names)} names.")
    return [Nodule(name, as_point(p)) for name, p in zip(names, points, strict=True)]


def nodules_from_labels(labels: Volume, names: dict[int, str] | None = None) -> NoduleList:
    """Nodules from a label map (integers (Z, Y, X), 0 is background).

    With several label values each value is one nodule. A map with a single value is split into
    its connected parts (26 neighbors), each one nodule, in the order of their voxels; parts of
    fewer than 3 voxels are left out and counted in a note. ``names`` are those of the values.
    Raises :class:`InputError` when nothing is labeled.
    """
    from scipy import ndimage

    array, notes = labels.array, []
    values = [int(v) for v in np.unique(array) if v != 0]
    if not values:
        raise InputError("The label map of nodules is empty; mark at least one nodule.")
    names = names or {}
    if len(values) == 1:
        name = names.get(values[0], "nodule")
        array, count = ndimage.label(array == values[0], structure=np.ones((3, 3, 3)))
        sizes = np.bincount(array.ravel(), minlength=count + 1)
        values = [k for k in range(1, count + 1) if sizes[k] >= _SMALLEST_VOXELS]
        if not values:
            raise InputError(f"The nodules of the label map have under {_SMALLEST_VOXELS} voxels.")
        names = {k: f"{name} {n}" for n, k in enumerate(values, start=1)}
        if len(values) == 1:
            names = {values[0]: name}
        notes.append(
            f"The label map has one value; its {len(values)} connected parts are the nodules."
        )
        if count > len(values):
            notes.append(f"{count - len(values)} specks of the label map were left out.")
    masks = label_masks(Volume(array, labels.grid), values)
    found = tuple(
        Nodule(names.get(value, f"label {value}"), mask_center(mask), mask)
        for value, mask in masks.items()
    )
    return NoduleList(found, tuple(notes))


def label_masks(labels: Volume, values: Sequence[int]) -> dict[int, Volume]:
    """A mask (uint8, 1 inside) for each of these values of a label map, cropped."""
    from scipy import ndimage

    boxes = ndimage.find_objects(labels.array)
    return {value: _mask(labels, boxes[value - 1], value) for value in values}


def _mask(labels: Volume, box: tuple[slice, ...], value: int) -> Volume:
    """The voxels of one value, cropped with a margin of a voxel."""
    wide = [
        slice(max(s.start - 1, 0), min(s.stop + 1, n))
        for s, n in zip(box, labels.array.shape, strict=True)
    ]
    inside = labels.array[tuple(wide)] == value
    lower = [s.start for s in wide][::-1]
    behind = [n - s.stop for s, n in zip(wide, labels.array.shape, strict=True)][::-1]
    grid = labels.grid.padded(tuple(-n for n in lower), tuple(-n for n in behind))
    return Volume(inside.astype(np.uint8), grid)


def mask_center(mask: Volume) -> Point:
    """The mean position of the marked voxels, LPS mm."""
    index = np.argwhere(mask.array > 0)[:, ::-1].mean(axis=0)
    return as_point(mask.grid.to_physical(index[None])[0])


def read_nodules(path: str | Path) -> NoduleList:
    """Reads nodules from a file.

    * a landmark file (.mrk.json, .fcsv, .csv, elastix .txt, .pts): one point, one nodule;
    * a label map or single-layer segmentation (any image): see :func:`nodules_from_labels`;
      names of segments are taken from a Slicer .seg.nrrd;
    * ``nodules.json`` of an earlier ``glidereg track``: the nodules of its fixed image, with
      their identities and what was measured.

    Raises :class:`InputError` with one sentence when the file is missing or unfit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"The nodule file '{path}' does not exist; check the path.")
    name = path.name.lower()
    if name.endswith(".json") and not name.endswith(".mrk.json"):
        from .files import is_tracking_file, read_tracking
        from .masks import with_masks

        if is_tracking_file(path):
            tracking = with_masks(read_tracking(path), path.parent, ("current",))
            return NoduleList(tuple(tracking.current_nodules()))
    if name.endswith((*EXTENSIONS, ".json")):
        landmarks = read_landmarks(path)
        notes = tuple(note.replace(f"'{path.name}'", "The nodule list") for note in landmarks.notes)
        return NoduleList(tuple(nodules_from_points(landmarks.points, landmarks.labels)), notes)
    return nodules_from_labels(read_labels(path), segment_header(path, "Name"))


def segment_header(path: str | Path, entry: str) -> dict[int, str]:
    """An entry ("Name", "ID") by label value from the header of a Slicer segmentation; empty for
    other files."""
    import SimpleITK as sitk

    if not Path(path).name.lower().endswith((".nrrd", ".nhdr")):
        return {}
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    names = {}
    for key in reader.GetMetaDataKeys():
        if key.startswith("Segment") and key.endswith("_LabelValue"):
            title = key.replace("_LabelValue", f"_{entry}")
            if reader.HasMetaDataKey(title):
                names[int(reader.GetMetaData(key))] = reader.GetMetaData(title)
    return names


def unique_names(nodules: Sequence[Nodule]) -> list[Nodule]:
    """The same nodules; a name that occurs again gets a number, so that a table can be read."""
    seen: dict[str, int] = {}
    renamed = []
    for nodule in nodules:
        seen[nodule.name] = count = seen.get(nodule.name, 0) + 1
        renamed.append(nodule if count == 1 else replace(nodule, name=f"{nodule.name} ({count})"))
    return renamed


def with_identities(
    nodules: Sequence[Nodule], known: Sequence[tuple[str, Point]], within_mm: float = _SAME_MM
) -> list[Nodule]:
    """The same nodules; those that are known already get the identifiers that they had.

    ``known`` are identifiers with their places in the same image (LPS mm). One nodule takes one
    identifier, the nearest within ``within_mm``, so that all distances together are the least.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if not nodules or not known:
        return list(nodules)
    distances = cdist([n.center for n in nodules], [place for _, place in known])
    # A pair beyond the reach must never push a good pair apart.
    rows, columns = linear_sum_assignment(np.where(distances <= within_mm, distances, 1e6))
    found = list(nodules)
    for row, column in zip(rows, columns, strict=True):
        if distances[row, column] <= within_mm:
            found[row] = replace(found[row], identifier=known[column][0])
    return found
