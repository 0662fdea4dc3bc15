"""Volumes: voxel values with their grid, read and written through SimpleITK.

A file that cannot be used gives one clear sentence (:class:`InputError`) that names the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, OutputError
from .geometry import Grid
from .nifti import check_nifti

if TYPE_CHECKING:
    import SimpleITK

#: Smallest number of voxels along an axis that can be registered.
MINIMUM_SIZE = 8


@dataclass(frozen=True)
class Volume:
    """Voxel values (Z, Y, X) with their grid.

    ``array`` is float32 for images (HU for CT) and an integer type for label maps. ``notes`` holds
    what was odd in the file and how it was handled; ``sha256`` identifies the file's content (None
    for a volume made in memory). Nothing here holds a patient's identity.
    """

    array: np.ndarray
    grid: Grid
    notes: tuple[str, ...] = field(default=())
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise InputError(
                f"The array of shape {self.array.shape} does not fit its grid of shape "
                f"{self.grid.shape} (Z, Y, X)."
            )

    @classmethod
    def from_sitk(cls, image: SimpleITK.Image, **kwargs: object) -> Volume:
        """A scalar 3-D SimpleITK image as a volume (float images become float32)."""
        import SimpleITK as sitk

        array = sitk.GetArrayFromImage(image)
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
        return cls(np.ascontiguousarray(array), Grid.from_sitk(image), **kwargs)

    def to_sitk(self) -> SimpleITK.Image:
        """The same voxels and geometry as a SimpleITK image (a copy)."""
        import SimpleITK as sitk

        return self.grid.copy_to_sitk(sitk.GetImageFromArray(self.array))

    def resampled(
        self,
        grid: Grid,
        transform: SimpleITK.Transform | None = None,
        background: float | None = 0.0,
        labels: bool = False,
    ) -> Volume:
        """This volume resampled onto another grid.

        ``transform`` maps LPS points of ``grid`` to LPS points of this volume (ITK's resampling
        direction); voxels that land outside get ``background``, or with None the value of the
        nearest voxel. Linear for images, nearest neighbor for ``labels``.
        """
        import SimpleITK as sitk

        resampler = sitk.ResampleImageFilter()
        resampler.SetSize(grid.size)
        resampler.SetOutputSpacing(grid.spacing)
        resampler.SetOutputOrigin(grid.origin)
        resampler.SetOutputDirection(grid.direction)
        if background is None:
            resampler.UseNearestNeighborExtrapolatorOn()
        else:
            resampler.SetDefaultPixelValue(float(background))
        resampler.SetInterpolator(sitk.sitkNearestNeighbor if labels else sitk.sitkLinear)
        if transform is not None:
            resampler.SetTransform(transform)
        return Volume.from_sitk(resampler.Execute(self.to_sitk()))


def read_volume(path: str | Path) -> Volume:
    """Reads a 3-D scalar image (NIfTI, NRRD, MetaImage, ... or a DICOM folder) as float32.

    Raises :class:`InputError` when it is missing, damaged, not 3-D, not scalar, holds NaN or
    infinite values, is constant, or is too small to register.
    """
    path = Path(path)
    image, notes = _read_image(path)
    import SimpleITK as sitk

    volume = Volume.from_sitk(sitk.Cast(image, sitk.sitkFloat32))
    array = volume.array
    if not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise InputError(
            f"'{path}' holds {bad} NaN or infinite voxels; replace them (for CT by -1024) first."
        )
    if array.min() == array.max():
        raise InputError(f"'{path}' is constant ({array.min():g} everywhere): nothing to register.")
    if min(volume.grid.size) < MINIMUM_SIZE:
        raise InputError(
            f"'{path}' has {' x '.join(map(str, volume.grid.size))} voxels; "
            f"at least {MINIMUM_SIZE} along each axis are needed."
        )
    return Volume(array, volume.grid, tuple(notes), content_hash(path))


def read_labels(path: str | Path) -> Volume:
    """Reads a label map or mask: integer values, 0 is background.

    Raises :class:`InputError` when it is missing, damaged, not 3-D, holds fractions or negative
    values, or holds no label at all.
    """
    path = Path(path)
    image, notes = _read_image(path)
    volume = Volume.from_sitk(image)
    array = volume.array
    if array.dtype.kind == "f" and not _is_whole(array):
        raise InputError(f"'{path}' is not a label map: it holds values that are not integers.")
    if array.min() < 0:
        raise InputError(f"'{path}' is not a label map: it holds negative values.")
    if array.max() > np.iinfo(np.int32).max:
        raise InputError(f"'{path}' holds the label {array.max():.0f}; the largest is 2147483647.")
    if not array.any():
        raise InputError(f"'{path}' is empty: no voxel is labeled; draw the mask or leave it out.")
    small = np.uint8 if array.max() < 256 else np.int32
    return Volume(array.astype(small), volume.grid, tuple(notes), content_hash(path))


def _is_whole(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all()) and np.array_equal(array, np.round(array))


def write_image(path: Path, image: SimpleITK.Image) -> None:
    """Writes an image whole or not at all, compressed.

    Raises :class:`OutputError` when the folder or the format cannot be written.
    """
    import SimpleITK as sitk

    replace_whole(path, lambda temporary: sitk.WriteImage(image, str(temporary), True))


def write_volume(path: str | Path, volume: Volume, dtype: type | None = None) -> None:
    """Writes a volume whole or not at all; ``dtype`` (such as numpy.int16) rounds the values."""
    array = volume.array
    if dtype is not None:
        limits = np.iinfo(dtype)
        array = np.clip(np.round(array), limits.min, limits.max).astype(dtype)
    write_image(Path(path), Volume(array, volume.grid).to_sitk())


def replace_whole(path: Path, write: object) -> None:
    """Calls ``write(temporary_path)`` and moves the file into place, so no half file is left.

    The temporary file has the same ending (the writers choose the format by it). Raises
    :class:`OutputError` with the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"'{path}' cannot be written ({first_sentence(error)}); "
            "choose another folder or format."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def content_hash(path: str | Path) -> str:
    """sha256 of a file, or of the names-free contents of a folder's files in sorted order."""
    path = Path(path)
    files: Iterable[Path] = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file())
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def first_sentence(error: BaseException) -> str:
    """The last telling line of an exception's text (ITK wraps it in many)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text.split("): ")[-1].removeprefix("ITK ERROR: ").rstrip(".")[:200]


def _read_image(path: Path) -> tuple[SimpleITK.Image, list[str]]:
    """A checked scalar 3-D image and notes on what was odd."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    if not path.exists():
        raise InputError(f"'{path}' does not exist; check the path.")
    if path.is_dir():
        return _read_dicom_folder(path)
    check_nifti(path)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        dimension, size = reader.GetDimension(), reader.GetSize()
        _check_layout(path, dimension, size, reader.GetNumberOfComponents())
        if dimension == 4:  # a single frame stored as 4-D
            reader.SetExtractSize([*size[:3], 0])
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"'{path}' cannot be read as an image ({first_sentence(error)}); "
            "it may be damaged, cut short or of a format that ITK does not know."
        ) from error
    return image, []


def _check_layout(path: Path, dimension: int, size: tuple[int, ...], components: int) -> None:
    if components != 1:
        raise InputError(
            f"'{path}' has {components} values per voxel (color or vectors); "
            "a scalar image is needed."
        )
    if dimension == 4 and size[3] > 1:
        raise InputError(
            f"'{path}' is 4-D with {size[3]} frames; extract one frame (3-D) and give that."
        )
    if dimension < 3 or (dimension == 3 and min(size) == 1):
        raise InputError(f"'{path}' is a single 2-D slice; a 3-D volume is needed.")
    if dimension > 4:
        raise InputError(f"'{path}' has {dimension} dimensions; a 3-D volume is needed.")


def _read_dicom_folder(path: Path) -> tuple[SimpleITK.Image, list[str]]:
    """The largest DICOM series of a folder, geometry checked."""
    import SimpleITK as sitk

    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if not series:
        raise InputError(f"The folder '{path}' holds no DICOM image series.")
    files = {s: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), s) for s in series}
    chosen = max(series, key=lambda s: len(files[s]))
    notes = []
    if len(series) > 1:
        notes.append(
            f"The DICOM folder holds {len(series)} series; the largest "
            f"({len(files[chosen])} files) is used."
        )
    if len(files[chosen]) < 2:
        raise InputError(f"The DICOM series in '{path}' has a single slice; a volume is needed.")
    positions = _slice_positions(files[chosen])
    gaps = np.diff(positions)
    if len(gaps) and (np.abs(gaps - np.median(gaps)) > 0.1 * abs(np.median(gaps)) + 0.01).any():
        raise InputError(
            f"The DICOM series in '{path}' has slices missing or unevenly spaced "
            f"({abs(gaps).min():.2f} to {abs(gaps).max():.2f} mm); export the whole series."
        )
    try:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files[chosen])
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"The DICOM series in '{path}' cannot be read ({first_sentence(error)})."
        ) from error
    _check_layout(
        path, image.GetDimension(), image.GetSize(), image.GetNumberOfComponentsPerPixel()
    )
    return image, notes


def _slice_positions(files: tuple[str, ...]) -> np.ndarray:
    """Position of each slice along the stack's normal, mm, in file order."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    origins, normal = [], None
    for name in files:
        reader.SetFileName(name)
        reader.ReadImageInformation()
        origins.append(reader.GetOrigin())
        normal = np.asarray(reader.GetDirection()).reshape(3, 3)[:, 2] if normal is None else normal
    return np.asarray(origins) @ normal
