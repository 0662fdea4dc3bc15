"""The voxels that were measured, as one label map per scan: what is measured can be looked at.

``nodules-prior.nrrd`` and ``nodules-current.nrrd`` lie on the voxels of their native image; label k
is nodule k of the table. Their header names each label as 3D Slicer does, with the identity of the
track as the ID of the segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..geometry import Grid
from ..volume import Volume, read_labels
from .nodules import label_masks, segment_header
from .records import Tracking

#: The scans, the attribute of a row that holds its voxels there, and their files.
SIDES = {"prior": "moving_mask", "current": "fixed_mask"}
MASK_FILES = {"prior": "nodules-prior.nrrd", "current": "nodules-current.nrrd"}


def masks_of(
    tracking: Tracking, current: Grid, prior: Grid
) -> tuple[dict[str, Volume], tuple[str, ...]]:
    """A label map for each scan ("prior", "current") in which something was measured, and notes.

    The grids are those of the native images. A voxel of two nodules gets the label of the first.
    """
    maps, shared = {}, []
    for side, grid in (("prior", prior), ("current", current)):
        found, overlap = _label_map(tracking, SIDES[side], grid)
        maps.update({} if found is None else {side: found})
        shared += [f"the {side}"] if overlap else []
    notes = (
        f"Nodules share voxels in {' and '.join(shared)} image; in the files of masks such a voxel "
        "belongs to the first of them.",
    )
    return maps, notes if shared else ()


def _label_map(tracking: Tracking, attribute: str, grid: Grid) -> tuple[Volume | None, bool]:
    """The label map (None without any mask), and whether nodules share voxels."""
    masks = [getattr(row, attribute) for row in tracking]
    if not any(mask is not None for mask in masks):
        return None, False
    labels = np.zeros(grid.shape, np.uint8 if len(masks) < 256 else np.uint16)
    overlap = False
    for k, mask in enumerate(masks, start=1):
        if mask is not None:
            start = np.rint(grid.to_index(np.asarray(mask.grid.origin)[None])[0]).astype(int)
            box = tuple(slice(a, a + n) for a, n in zip(start[::-1], mask.array.shape, strict=True))
            inside, part = mask.array > 0, labels[box]
            overlap |= bool((part[inside] > 0).any())
            part[inside & (part == 0)] = k
    return Volume(labels, grid), overlap


def write_masks(folder: Path, tracking: Tracking, maps: dict[str, Volume]) -> list[str]:
    """Writes the maps of :func:`masks_of` into a folder that exists; returns the file names."""
    import SimpleITK as sitk

    for side, labels in maps.items():
        image = labels.to_sitk()
        rows = [(k, row) for k, row in enumerate(tracking, 1) if getattr(row, SIDES[side])]
        for n, (value, row) in enumerate(rows):
            name = " ".join(row.name.split())
            entries = {"ID": row.identifier, "Name": name, "LabelValue": str(value), "Layer": "0"}
            for key, text in entries.items():
                image.SetMetaData(f"Segment{n}_{key}", text)
        sitk.WriteImage(image, str(folder / MASK_FILES[side]), True)
    return [MASK_FILES[side] for side in maps]


def read_masks(path: str | Path) -> dict[str, Volume]:
    """The masks of a file of :func:`write_masks` by the identity of their track, each cropped.

    Raises :class:`InputError` when the file cannot be read.
    """
    labels = read_labels(path)
    identities = segment_header(path, "ID")
    masks = label_masks(labels, [int(v) for v in np.unique(labels.array) if v])
    return {identities[value]: mask for value, mask in masks.items() if value in identities}


def with_masks(tracking: Tracking, folder: Path, sides: Sequence[str] = tuple(SIDES)) -> Tracking:
    """The same with the voxels that its run wrote into ``folder``, where it wrote any."""
    for side in sides:
        if (folder / MASK_FILES[side]).is_file():
            masks = read_masks(folder / MASK_FILES[side])
            rows = (replace(r, **{SIDES[side]: masks.get(r.identifier)}) for r in tracking)
            tracking = replace(tracking, rows=tuple(rows))
    return tracking
