"""Images, dose and label maps on the grid of the other image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..geometry import Grid
from ..prepare import background_value, detect_modality
from ..volume import Volume, read_labels
from .carrier import Carrier

if TYPE_CHECKING:
    import SimpleITK

#: Voxels around a label in which its smooth edge is looked for.
_RIM = 2
#: Deeper inside or farther outside than any voxel, mm.
_FAR = 1e6


def carry_image(image: Volume, carrier: Carrier) -> Volume:
    """An image on the target grid, linearly interpolated; float32.

    Outside of it: -1024 HU for CT, the minimum for others. Whole numbers stay whole.
    """
    background = background_value(image, detect_modality(image))
    carried = image.resampled(carrier.target, carrier.pull, background)
    if not np.array_equal(image.array, np.round(image.array)):
        return carried
    kind = np.int16 if np.abs(image.array).max() < 32768 else np.int32
    return Volume(np.round(carried.array).astype(kind), carrier.target)


def carry_dose(dose: Volume, carrier: Carrier) -> Volume:
    """A dose on the target grid, linearly interpolated, 0 outside; float32 in the unit it has.

    The value at a piece of tissue stays what it was: dose is energy per mass, so it is not
    multiplied with the change of volume.
    """
    array = np.asarray(dose.array, np.float32)
    return Volume(array, dose.grid).resampled(carrier.target, carrier.pull, 0.0)


def carry_labels(labels: Volume, carrier: Carrier, smooth: bool = False) -> Volume:
    """A label map on the target grid, 0 outside; the values are those of the source.

    By default each voxel takes the nearest voxel's label. ``smooth`` interpolates the signed
    distance to every label's surface and takes the label that is deepest (shape-based
    interpolation, Raya and Udupa 1990): no steps from thick slices, where interpolated shares of
    labels would keep them. Corners are rounded, which takes 3.5 % of a ball of 20 mm in voxels of
    2.5 mm. What the target's voxels cannot resolve is blurred first.
    """
    nearest = labels.resampled(carrier.target, carrier.pull, labels=True)
    return _smoothed(labels, nearest, carrier) if smooth else nearest


def label_volumes(labels: Volume) -> dict[int, float]:
    """Volume of each label in mm³."""
    values, counts = np.unique(labels.array[labels.array != 0], return_counts=True)
    voxel = float(np.prod(labels.grid.spacing))
    return {int(v): float(c * voxel) for v, c in zip(values, counts, strict=True)}


# --- smooth label maps ------------------------------------------------------------------------


def _smoothed(labels: Volume, nearest: Volume, carrier: Carrier) -> Volume:
    """The label in which a voxel lies deepest; background counts as a label."""
    chosen = np.zeros_like(nearest.array)
    best = np.full(nearest.grid.shape, -_FAR, np.float32)
    sigmas = _blur(labels.grid, carrier.target)
    reach = [_RIM + int(np.ceil(3 * s)) for s in sigmas]
    places, places_after = _boxes(labels.array), _boxes(nearest.array)
    if not places_after:
        return nearest
    for value in (0, *places_after):
        here, there = (
            _union(boxes.values()) if value == 0 else boxes[value]
            for boxes in (places, places_after)
        )
        source = _widened(here, reach, labels.array.shape)
        target = _widened(there, [_RIM] * 3, chosen.shape)
        depth = _depth(labels.array[source] == value, _cropped(labels.grid, source), sigmas)
        beyond = _FAR if value == 0 else -_FAR
        found = depth.resampled(_cropped(nearest.grid, target), carrier.pull, beyond).array
        more = found > best[target]
        best[target][more] = found[more]
        chosen[target][more] = value
    return Volume(chosen, nearest.grid)


def _depth(mask: np.ndarray, grid: Grid, sigmas: list[float]) -> Volume:
    """Distance in mm to the surface of a mask (Z, Y, X), positive inside; 0 halfway between a voxel
    inside and one outside. Blurred with ``sigmas`` (z, y, x), voxels."""
    import SimpleITK as sitk

    depth = np.full(mask.shape, _FAR if mask.any() else -_FAR, np.float32)
    if mask.any() and not mask.all():
        sides = []
        for side in (mask, ~mask):
            image = sitk.GetImageFromArray(side.astype(np.uint8))
            image.SetSpacing(grid.spacing)
            # Outside of what is marked it is the distance to the nearest marked voxel.
            away = sitk.SignedMaurerDistanceMap(image, False, False, True)
            sides.append(sitk.GetArrayFromImage(away))
        depth = np.where(mask, sides[1], -sides[0])
        depth = ndimage.gaussian_filter(depth, sigmas) if any(sigmas) else depth
    return Volume(np.ascontiguousarray(depth, np.float32), grid)


def _union(boxes: Iterable[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box that holds all boxes."""
    return tuple(
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*boxes, strict=True)
    )


def _boxes(array: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """The bounding box of every label, whatever its value."""
    values, ranks = np.unique(array, return_inverse=True)
    first = 0 if values[0] != 0 else 1
    boxes = ndimage.find_objects(ranks.reshape(array.shape) + (1 - first))
    return {int(v): box for v, box in zip(values[first:], boxes, strict=True)}


def _widened(
    box: tuple[slice, ...], by: list[int], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    return tuple(
        slice(max(s.start - n, 0), min(s.stop + n, size))
        for s, n, size in zip(box, by, shape, strict=True)
    )


def _cropped(grid: Grid, box: tuple[slice, ...]) -> Grid:
    """The part of a grid that a box of array slices (z, y, x) covers."""
    lower = tuple(-s.start for s in box[::-1])
    upper = tuple(s.stop - n for s, n in zip(box[::-1], grid.size, strict=True))
    return grid.padded(lower, upper)


def _blur(source: Grid, target: Grid) -> list[float]:
    """Standard deviations in source voxels (z, y, x) of what the target cannot resolve."""
    step = np.abs(np.linalg.inv(source.matrix)[:3, :3] @ target.matrix[:3, :3]).max(axis=1)
    return [0.5 * float(np.sqrt(max(r * r - 1, 0))) if r > 1.01 else 0.0 for r in step[::-1]]


# --- files ------------------------------------------------------------------------------------


def read_layers(path: Path) -> tuple[list[Volume], dict[str, str]]:
    """A label map as its layers, and the segments' descriptions of a Slicer .seg.nrrd.

    Slicer stores segments that overlap in several layers; any other file has one. Raises
    :class:`InputError` when it is no label map.
    """
    if not path.name.lower().endswith(".nrrd") or not path.is_file():
        return [read_labels(path)], {}
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return [read_labels(path)], {}  # says what is wrong with the file
    about = {
        key: reader.GetMetaData(key)
        for key in reader.GetMetaDataKeys()
        if key.startswith("Segment")
    }
    if reader.GetNumberOfComponents() == 1 or not about or reader.GetDimension() != 3:
        return [read_labels(path)], about
    image = reader.Execute()
    count = image.GetNumberOfComponentsPerPixel()
    return [Volume.from_sitk(sitk.VectorIndexSelectionCast(image, k)) for k in range(count)], about


def layers_to_image(layers: list[Volume], about: dict[str, str]) -> SimpleITK.Image:
    """The layers as one image, with the segments' descriptions."""
    import SimpleITK as sitk

    images = [layer.to_sitk() for layer in layers]
    image = images[0] if len(images) == 1 else sitk.Compose(images)
    whole = " ".join(f"0 {n - 1}" for n in image.GetSize())
    # The old extents and offset belong to the old grid; Slicer reads no segment without them.
    extents = {f"{key.rpartition('_')[0]}_Extent": whole for key in about if key.endswith("_ID")}
    if about:
        extents["Segmentation_ReferenceImageExtentOffset"] = "0 0 0"
    for key, value in {**about, **extents}.items():
        image.SetMetaData(key, whole if key.endswith("_Extent") else value)
    return image
