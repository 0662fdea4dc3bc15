"""A transform in the files that registration challenges take, each by its published convention.

All go through one thing: the continuous index in the moving image of every fixed voxel. Indices are
those of the files (x, y, z order, 0 at the center of the first voxel).
"""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, OutputError
from ..field import read_transform, sample_transform, transform_points
from ..geometry import Grid
from ..landmarks import read_landmarks
from ..prepare import body_mask, detect_modality, normalize_intensity
from ..result import whole_folder
from ..volume import Volume, read_labels, read_volume, replace_whole, write_image

if TYPE_CHECKING:
    import SimpleITK

FORMATS = ("learn2reg", "lung250m", "empire10")
#: About so many points are written for Lung250M-4B: its evaluation fits a spline to them.
LUNG250M_POINTS = 2000
_LEARN2REG_NAME = re.compile(r"_(\d{4})_(\d{4})\.nii(?:\.gz)?$")


def moving_index(transform: SimpleITK.Transform, fixed: Grid, moving: Grid) -> np.ndarray:
    """Where every fixed voxel lands in the moving image: float32 (3, Z, Y, X), continuous index of
    the moving grid, components x, y, z. ``transform`` maps fixed to moving LPS mm."""
    vectors = sample_transform(transform, fixed).vectors
    return (moving.index_of(fixed) + moving.mm_to_voxels(vectors)).numpy()


def write_learn2reg(
    path: str | Path, transform: SimpleITK.Transform, fixed: Grid, moving: Grid
) -> None:
    """Writes ``disp_*.nii.gz``: a 4-D NIfTI (X, Y, Z, 3), float32, voxels; the fixed index plus the
    displacement is the moving index.

    Source: ``compute_tre`` and ``load_disp`` of github.com/MDL-UzL/L2R (evaluation/utils.py).
    Raises :class:`OutputError`.
    """
    import SimpleITK as sitk

    displacement = moving_index(transform, fixed, moving) - fixed.index_tensor().numpy()
    # A scalar 4-D image: ITK would store vectors as the fifth dimension.
    image = sitk.GetImageFromArray(displacement, isVector=False)
    direction = np.eye(4)
    direction[:3, :3] = fixed.direction_matrix
    image.SetSpacing((*fixed.spacing, 1.0))
    image.SetOrigin((*fixed.origin, 0.0))
    image.SetDirection(direction.ravel().tolist())
    write_image(Path(path), image)


def learn2reg_name(fixed: str | Path, moving: str | Path) -> str:
    """The name that the evaluation looks for: ``disp_FFFF_MMMM.nii.gz`` where the fixed image is
    modality 0000 and the moving one 0001, else with both modalities.

    Raises :class:`InputError` when the images are not named like ``NLST_0101_0000.nii.gz``.
    """
    found = [_LEARN2REG_NAME.search(Path(name).name) for name in (fixed, moving)]
    if None in found:
        raise InputError(
            "Learn2Reg's names are made from images named like 'NLST_0101_0000.nii.gz'; "
            "give the whole name of the output file instead of a folder."
        )
    (subject, modality), (other, second) = (match.groups() for match in found)
    if (modality, second) == ("0000", "0001"):
        return f"disp_{subject}_{other}.nii.gz"
    return f"disp_{subject}_{modality}_{other}_{second}.nii.gz"


def write_lung250m(
    path: str | Path,
    transform: SimpleITK.Transform,
    fixed: Grid,
    moving: Grid,
    points: np.ndarray,
) -> None:
    """Writes ``case_NNN.csv``: one row per correspondence, fixed index x, y, z and moving index
    x, y, z, no header, three decimals. ``points`` are fixed LPS mm (N, 3).

    Source: github.com/multimodallearning/Lung250M-4B (corrfield/corrfield.py writes such files,
    evaluation/evaluate.py reads them). Raises :class:`OutputError`.
    """
    rows = np.hstack((fixed.to_index(points), moving.to_index(transform_points(transform, points))))
    text = io.StringIO()
    np.savetxt(text, rows, delimiter=",", fmt="%.3f")
    replace_whole(Path(path), functools.partial(_write_text, text.getvalue()))


def write_empire10(
    folder: str | Path, transform: SimpleITK.Transform, fixed: Grid, moving: Grid
) -> None:
    """Writes ``defX.mhd``, ``defY.mhd``, ``defZ.mhd`` (with .raw, float32) into a folder.

    EMPIRE10 knows no origin and no direction: index times spacing is the position in mm, in either
    image, and moving position = fixed position + def. Source: empire10.grand-challenge.org/dvf.
    All or none are written. Raises :class:`OutputError`.
    """
    import SimpleITK as sitk

    there = moving_index(transform, fixed, moving)
    here = fixed.index_tensor().numpy()
    with whole_folder(folder) as partial:
        for axis, name in enumerate("XYZ"):
            values = there[axis] * moving.spacing[axis] - here[axis] * fixed.spacing[axis]
            image = sitk.GetImageFromArray(values.astype(np.float32))
            image.SetSpacing(fixed.spacing)
            sitk.WriteImage(image, str(partial / f"def{name}.mhd"))


def lattice_points(volume: Volume, mask: Volume | None, count: int) -> np.ndarray:
    """About ``count`` points spread evenly over a mask (else over the body), LPS mm (N, 3)."""
    if mask is None:
        modality = detect_modality(volume)
        inside = body_mask(normalize_intensity(volume, modality), modality)
        grid = volume.grid
    else:
        inside, grid = mask.array > 0, mask.grid
    index = np.argwhere(inside)
    if len(index) == 0:
        raise InputError("The mask for the points of Lung250M-4B is empty.")
    volume_mm3 = len(index) * float(np.prod(grid.spacing))
    step = np.cbrt(volume_mm3 / count) / np.asarray(grid.spacing[::-1])
    step = np.maximum(np.round(step), 1).astype(int)
    chosen = index[np.all((index - index.min(axis=0)) % step == 0, axis=1)]
    return grid.to_physical(chosen[:, ::-1])


def export_files(
    kind: str,
    transform: str,
    fixed: str,
    moving: str,
    output: str,
    points: str | None = None,
    mask: str | None = None,
) -> Path:
    """Reads a transform and both images, writes one of :data:`FORMATS`; returns what was written.

    ``output`` is a folder, or for learn2reg and lung250m the file itself. ``points`` (a landmark
    file of the fixed image) or ``mask`` choose the points of lung250m.
    """
    mapping = read_transform(transform)
    volumes = read_volume(fixed), read_volume(moving)
    grids = [volume.grid for volume in volumes]
    target = Path(output)
    if kind == "learn2reg":
        if not target.name.endswith((".nii.gz", ".nii")):
            target = target / learn2reg_name(fixed, moving)
        write_learn2reg(target, mapping, *grids)
    elif kind == "lung250m":
        if target.suffix != ".csv":
            raise OutputError(f"Lung250M-4B wants a file like 'case_104.csv', not '{output}'.")
        if points:
            chosen = read_landmarks(points, grids[0]).points
        else:
            region = read_labels(mask) if mask else None
            chosen = lattice_points(volumes[0], region, LUNG250M_POINTS)
        write_lung250m(target, mapping, *grids, chosen)
    elif kind == "empire10":
        write_empire10(target, mapping, *grids)
    else:
        raise InputError(f"There is no format '{kind}'; choose from {', '.join(FORMATS)}.")
    return target


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
