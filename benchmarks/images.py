"""Files that a method finds in its folder, and displacement images."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

#: The pair on the common grid, and the same pair as it came with the affine start.
COMMON = ("fixed.mha", "moving.mha")
NATIVE = ("native_fixed.mha", "native_moving.mha")
START = "start.tfm"
#: What a method has to say about its run, one remark a line; shown below the table.
REMARKS = "remarks.txt"


def displacement_image(vectors: np.ndarray, fixed: sitk.Image, in_voxels: bool) -> sitk.Image:
    """A displacement (Z, Y, X, 3), components x, y, z, as a vector image in LPS mm on the grid of
    ``fixed``; ``in_voxels`` says that the components count voxels along the index axes."""
    if in_voxels:
        direction = np.asarray(fixed.GetDirection()).reshape(3, 3)
        vectors = vectors @ (direction * np.asarray(fixed.GetSpacing())).T
    image = sitk.GetImageFromArray(np.ascontiguousarray(vectors, dtype=np.float32), isVector=True)
    image.CopyInformation(fixed)
    return image
