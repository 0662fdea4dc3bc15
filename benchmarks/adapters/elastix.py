"""elastix (PyPI ``itk-elastix``): its default B-spline map, 4 resolutions, 10 mm final grid."""

from __future__ import annotations

from pathlib import Path

import itk
import numpy as np
import SimpleITK as sitk

from benchmarks.images import displacement_image

GRID_MM = 10.0
RESOLUTIONS = 4


def register(fixed: sitk.Image, moving: sitk.Image, workdir: Path) -> sitk.Image:
    """Mutual information and bending energy, adaptive stochastic gradient descent."""
    first, second = (_to_itk(image) for image in (fixed, moving))
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(
        parameters.GetDefaultParameterMap("bspline", RESOLUTIONS, GRID_MM),
    )
    _, found = itk.elastix_registration_method(
        first, second, parameter_object=parameters, log_to_console=False
    )
    # Without a folder it would write into the one that happens to be current.
    field = itk.transformix_deformation_field(
        second, found, log_to_console=False, output_directory=str(workdir)
    )
    return displacement_image(np.asarray(field), fixed, in_voxels=False)


def _to_itk(image: sitk.Image) -> itk.Image:
    converted = itk.image_from_array(sitk.GetArrayFromImage(image).astype(np.float32))
    converted.SetSpacing(image.GetSpacing())
    converted.SetOrigin(image.GetOrigin())
    converted.SetDirection(np.asarray(image.GetDirection()).reshape(3, 3))
    return converted
