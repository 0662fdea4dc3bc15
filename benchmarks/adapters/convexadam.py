"""ConvexAdam (PyPI ``convexadam``) with the defaults of its own function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from convexAdam.convex_adam_MIND import convex_adam_pt

from benchmarks.images import displacement_image


def register(fixed: sitk.Image, moving: sitk.Image, workdir: Path) -> sitk.Image:
    """MIND r=1 d=2, grid 6, search 4, 80 Adam iterations: what the package does by itself."""
    arrays = [sitk.GetArrayFromImage(image).astype(np.float32) for image in (fixed, moving)]
    voxels = convex_adam_pt(*arrays)  # (Z, Y, X, 3), components in array order
    return displacement_image(voxels[..., ::-1], fixed, in_voxels=True)
