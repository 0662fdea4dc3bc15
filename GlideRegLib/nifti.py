"""Checks of NIfTI files that ITK does not make.

ITK fills what is missing at the end of a compressed file with whatever it has, and turns NaN into
0 (soft tissue, in CT): both would pass unseen.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from .errors import InputError

_FLOATS = {16: np.dtype("f4"), 64: np.dtype("f8")}
_BLOCK = 1 << 24


def check_nifti(path: Path) -> None:
    """Raises :class:`InputError` when a .nii or .nii.gz file is cut short or holds NaN.

    Does nothing for other files, nor for what is not a NIfTI-1 file (ITK tells about that).
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            header = stream.read(352)
            order = "<" if header[:4] == b"\x5c\x01\x00\x00" else ">"
            if len(header) < 352 or np.frombuffer(header, f"{order}i4", 1)[0] != 348:
                return
            kind = int(np.frombuffer(header, f"{order}i2", 1, 70)[0])
            bits = int(np.frombuffer(header, f"{order}i2", 1, 72)[0])
            dimensions = np.frombuffer(header, f"{order}i2", 8, 40)
            start = int(np.frombuffer(header, f"{order}f4", 1, 108)[0])
            count = int(np.prod(dimensions[1 : 1 + dimensions[0]].astype(np.int64)))
            stream.read(max(start - 352, 0))
            size, bad = _read_values(stream, _FLOATS.get(kind), order)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"'{path}' cannot be read as an image: it is cut short or damaged ({error})."
        ) from error
    if size < count * bits // 8:
        raise InputError(
            f"'{path}' cannot be read as an image: it is cut short ({size} bytes of voxels, "
            f"{count * bits // 8} expected)."
        )
    if bad:
        raise InputError(
            f"'{path}' holds {bad} NaN or infinite voxels; replace them (for CT by -1024) first."
        )


def _read_values(stream: object, dtype: np.dtype | None, order: str) -> tuple[int, int]:
    """Bytes of voxels in the rest of the stream, and how many floats are not finite."""
    size = bad = 0
    while block := stream.read(_BLOCK):
        size += len(block)
        if dtype is not None:
            whole = len(block) // dtype.itemsize * dtype.itemsize
            values = np.frombuffer(block[:whole], dtype.newbyteorder(order))
            bad += int(np.count_nonzero(~np.isfinite(values)))
    return size, bad
