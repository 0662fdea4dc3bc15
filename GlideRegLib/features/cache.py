"""Disk cache of encoded slices: a second run with other settings does not encode again."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .folders import cache_root

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("GlideReg")

#: What the entries may take together, bytes.
DEFAULT_LIMIT = 20 * 10**9
#: What is left free on the disk, bytes: the results of the run need room too.
_RESERVE = 10**9
_SUFFIX = ".features.safetensors"


def content_key(*parts: bytes | str | np.ndarray | torch.Tensor) -> str:
    """sha256 (hex) over the kinds, types, shapes and contents of all parts, in order."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            head, body = "text", memoryview(part.encode())
        elif isinstance(part, bytes):
            head, body = "bytes", memoryview(part)
        else:
            array = part if isinstance(part, np.ndarray) else part.detach().cpu().numpy()
            head = f"{array.dtype.newbyteorder('<').str}{array.shape}"
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            body = np.ascontiguousarray(little).data
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        total.update(f"{head} {body.nbytes}\n".encode())
        total.update(body)
    return total.hexdigest()


class FeatureCache:
    """float16 tensors by content key, in one folder; the least recently used make room.

    ``folder``: default ``features`` in the user's cache. ``max_bytes``: what the entries may take
    together. A damaged entry counts as missing. Writing is atomic, several processes may share the
    folder, and a cache that cannot be written costs time only, never the run. Round to float16
    what was just encoded, too, so that a full cache gives the same result as an empty one.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        enabled: bool = True,
        max_bytes: int = DEFAULT_LIMIT,
    ) -> None:
        self.folder = Path(folder) if folder is not None else cache_root() / "features"
        self.enabled = enabled
        self.max_bytes = max_bytes

    def get(self, key: str) -> torch.Tensor | None:
        """The tensor of a key (float16, on the CPU), or None."""
        path = self._path(key)
        if not self.enabled or not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            stored = load_file(path)
            features = stored["features"]
            if int(stored["crc32"]) != _crc32(features):
                raise ValueError("the contents were altered")
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # the time of change is the time of last use
        return features

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keeps a tensor of any shape, unless float16 cannot hold it or there is no room."""
        if not self.enabled:
            return
        import torch
        from safetensors.torch import save_file

        half = features.detach().to("cpu", torch.float16).contiguous()
        if not half.numel() or not torch.isfinite(half.abs().max()):
            return
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(half.nbytes):
                return
            save_file({"features": half, "crc32": torch.tensor(_crc32(half))}, temporary)
            os.replace(temporary, path)
        except Exception as error:  # safetensors has a kind of its own for a failing disk
            logger.warning("Encoded slices are not cached in %s (%s).", self.folder, error)
            self.enabled = False
            with suppress(OSError):
                temporary.unlink()

    def size(self) -> int:
        """Bytes in use."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> int:
        """Removes every entry; gives the freed bytes."""
        freed = 0
        for path, size, _ in self._entries():
            with suppress(OSError):
                path.unlink()
                freed += size
        return freed

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _entries(self) -> list[tuple[Path, int, float]]:
        """(path, bytes, time of last use), the least recently used first, and leftovers."""
        found = []
        for path in [
            *self.folder.glob(f"*{_SUFFIX}"),
            *self.folder.glob(f"*{_SUFFIX}.*.part"),  # of a run that was killed
        ]:
            with suppress(OSError):  # another process may have removed it meanwhile
                state = path.stat()
                found.append((path, state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: entry[2])

    def _make_room(self, n_bytes: int) -> bool:
        """Removes the least recently used entries until ``n_bytes`` fit; False if they cannot."""
        entries = self._entries()
        used = sum(size for _, size, _ in entries)
        free = shutil.disk_usage(self.folder).free - _RESERVE
        capacity = min(self.max_bytes, used + free) - n_bytes
        if capacity < 0:
            return False
        for path, size, _ in entries:
            if used <= capacity:
                break
            with suppress(OSError):
                path.unlink()
                used -= size
        return used <= capacity


def _crc32(features: torch.Tensor) -> int:
    return zlib.crc32(features.contiguous().numpy().data.cast("B"))
