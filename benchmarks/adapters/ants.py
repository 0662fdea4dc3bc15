"""ANTs SyN (PyPI ``antspyx``): the deformable stage of ANTs' own script antsRegistrationSyNQuick.

Mutual information with 32 bins, 100 x 70 x 50 x 0 iterations, SyN step 0.1, update smoothing 3.
"""

from __future__ import annotations

from pathlib import Path

import ants
import SimpleITK as sitk


def register(fixed: sitk.Image, moving: sitk.Image, workdir: Path) -> sitk.Image:
    """The images pass through files: antspyx has its own ITK."""
    paths = []
    for name, image in (("fixed", fixed), ("moving", moving)):
        paths.append(workdir / f"{name}.nii.gz")
        sitk.WriteImage(image, str(paths[-1]))
    result = ants.registration(
        *(ants.image_read(str(path)) for path in paths),
        type_of_transform="antsRegistrationSyNQuick[so]",
        initial_transform="Identity",
        outprefix=str(workdir / "ants"),
    )
    warp = next(name for name in result["fwdtransforms"] if "Warp" in name)
    field = sitk.Cast(sitk.ReadImage(warp), sitk.sitkVectorFloat32)
    field.CopyInformation(fixed)  # NIfTI rounds the geometry
    return field
