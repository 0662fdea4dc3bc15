"""What the kinds of nodes have in common: files for the worker, and looks of the new nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class ItemFile:
    """A file of the job: its kind there ("labels", "dose", "images", "meshes"), its name, and what
    writes it, in any thread."""

    kind: str
    name: str
    write: Callable[[Path], None]


_END = b"end_header\n"
_HEADER = (
    "ply\nformat binary_little_endian 1.0\ncomment SPACE=LPS\nelement vertex {}\n"
    "property double x\nproperty double y\nproperty double z\nend_header\n"
)


def writePoints(points: np.ndarray, path: Path) -> None:
    """World LPS points (N, 3) as a mesh without faces, in double precision."""
    header = _HEADER.format(len(points)).encode("ascii")
    path.write_bytes(header + np.ascontiguousarray(points, "<f8").tobytes())


def readPoints(path: Path) -> np.ndarray:
    """World LPS points (N, 3) of a file of :func:`writePoints` that the worker carried; it changes
    nothing but the numbers. (The library's reader needs PyTorch, which has no place here.)"""
    data = path.read_bytes()
    return np.frombuffer(data, "<f8", offset=data.index(_END) + len(_END)).reshape(-1, 3)


def copyLooks(node, new) -> None:
    """Colors, windows and opacities of the old node."""
    new.CreateDefaultDisplayNodes()
    old, display = node.GetDisplayNode(), new.GetDisplayNode()
    if old is None or display is None or old.GetClassName() != display.GetClassName():
        return
    display.CopyContent(old)
    # A color table is a reference, which copying leaves out.
    if old.GetColorNodeID():
        display.SetAndObserveColorNodeID(old.GetColorNodeID())
