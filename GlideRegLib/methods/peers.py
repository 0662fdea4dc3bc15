"""What the adapters to other people's programs share: their fields, their failures, their files."""

from __future__ import annotations

import gzip
import os
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import GlideRegError, MethodError
from ..field import DisplacementField
from ..geometry import Grid
from ..machine import is_out_of_memory
from ..progress import Progress
from ..volume import first_sentence

if TYPE_CHECKING:
    import SimpleITK

_POLL_SECONDS = 0.1
#: NIfTI data types that the peers write: code -> numpy's name.
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"}


@contextmanager
def peer(title: str) -> Iterator[Path]:
    """A scratch folder for a peer; what goes wrong in it becomes one sentence (MethodError)."""
    with tempfile.TemporaryDirectory(prefix="glidereg-") as folder:
        try:
            yield Path(folder)
        except GlideRegError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise MethodError(f"{title} failed ({first_sentence(error)}).") from error


def run_program(
    arguments: Sequence[str], folder: Path, progress: Progress, threads: int = 0
) -> None:
    """Runs a program in ``folder`` until it ends or the user cancels; then it is ended too.

    Raises :class:`MethodError` with its last line when it fails.
    """
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(arguments),
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=os.name == "posix",
        )
        try:
            while process.poll() is None:
                progress.check()
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                _end(process)
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].strip().rstrip(".")[:200] if lines else f"exit code {process.returncode}"
        raise MethodError(f"The program '{Path(arguments[0]).name}' failed ({said}).")


def _end(process: subprocess.Popen) -> None:
    """Ends a program and the processes that it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def field_of_image(image: SimpleITK.Image, grid: Grid) -> DisplacementField:
    """A displacement image in LPS mm whose geometry a file format may have rounded, on ``grid``.

    Raises :class:`MethodError` when it lies elsewhere or holds values that are not finite.
    """
    found = DisplacementField.from_sitk(image)
    if not found.grid.is_close(grid, 0.05):
        raise MethodError("The displacement field that came back lies on another grid.")
    return checked_field(found.vectors, grid)


def field_of_voxels(displacement: np.ndarray, grid: Grid) -> DisplacementField:
    """From a displacement (Z, Y, X, 3) in voxels of ``grid``, components x, y, z."""
    vectors = np.array(np.moveaxis(displacement, -1, 0), dtype=np.float32, order="C")
    return checked_field(grid.voxels_to_mm(torch.from_numpy(vectors)), grid)


def checked_field(vectors: torch.Tensor, grid: Grid) -> DisplacementField:
    """LPS mm vectors (3, Z, Y, X) as a field; MethodError when they are not finite."""
    if not torch.isfinite(vectors).all():
        raise MethodError("The displacement field that came back holds NaN or infinite values.")
    return DisplacementField(vectors.float(), grid)


def read_nifti_array(path: Path) -> np.ndarray:
    """The voxels of a little-endian NIfTI-1 file in index order (X, Y, Z, ...), as they are stored.

    ITK's reader turns vectors round according to the intent; the peers' files mean different things
    by the same intent. Raises :class:`MethodError` when the file is missing or of another kind.
    """
    if not path.is_file():
        raise MethodError(f"The file '{path.name}' that should hold the field was not written.")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if len(data) < 352 or struct.unpack_from("<i", data)[0] != 348:
        raise MethodError(f"The file '{path.name}' that should hold the field is no NIfTI file.")
    sizes = struct.unpack_from("<8h", data, 40)
    kind = _NIFTI_TYPES.get(struct.unpack_from("<h", data, 70)[0])
    offset = int(struct.unpack_from("<f", data, 108)[0])
    shape = sizes[1 : 1 + sizes[0]]
    if kind is None or len(data) < offset + np.dtype(kind).itemsize * int(np.prod(shape)):
        raise MethodError(f"The file '{path.name}' that should hold the field is damaged.")
    values = np.frombuffer(data, "<" + kind, int(np.prod(shape)), offset)
    return values.reshape(shape, order="F")
