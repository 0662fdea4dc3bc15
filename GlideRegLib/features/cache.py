"""Disk cache of encoded slices: a second run with other settings does not encode again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .folders import cache_root

if TYPE_CHECKING:
    import torch

#: Size at which the entries that were not used for longest are removed, bytes.
DEFAULT_LIMIT = 20 * 10**9
_SUFFIX = ".features.safetensors"


def content_key(*parts: bytes | str | np.ndarray | torch.Tensor) -> str:
    """sha256 over the contents (and shapes and types) of all parts, in order."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode()
        if isinstance(part, bytes):
            header, data = b"bytes", part
        else:
            array = part if isinstance(part, np.ndarray) else part.detach().cpu().numpy()
            header, data = f"{array.dtype}{array.shape}".encode(), array.tobytes()
        total.update(header + len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


class FeatureCache:
    """float16 tensors by content key, in one folder, limited in size.

    A damaged entry counts as missing. Writing is atomic, and a cache that cannot be written costs
    time only, never the run.
    """

    def __init__(
        self, folder: Path | None = None, enabled: bool = True, max_bytes: int = DEFAULT_LIMIT
    ) -> None:
        self._folder = folder or cache_root() / "features"
        self._enabled = enabled
        self._max_bytes = max_bytes

    def get(self, key: str) -> torch.Tensor | None:
        """The tensor of a key, or None."""
        path = self._path(key)
        if not self._enabled or not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensor = load_file(path)["features"]
            os.utime(path)
        except (OSError, KeyError, ValueError, SafetensorError):
            path.unlink(missing_ok=True)
            return None
        return tensor

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keeps a tensor; the entries that were not used for longest make room for it."""
        if not self._enabled:
            return
        import torch
        from safetensors.torch import save_file

        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"features": features.to(torch.float16).contiguous()}, temporary)
            os.replace(temporary, path)
            self._make_room()
        except OSError:
            temporary.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes in use."""
        return sum(path.stat().st_size for path in self._entries())

    def clear(self) -> int:
        """Removes every entry; gives the freed bytes."""
        freed = 0
        for path in self._entries():
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
        return freed

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _entries(self) -> list[Path]:
        found = [*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob(f"*{_SUFFIX}.*.part")]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def _make_room(self) -> None:
        entries = self._entries()
        excess = sum(path.stat().st_size for path in entries) - self._max_bytes
        for path in entries[:-1]:
            if excess <= 0:
                return
            excess -= path.stat().st_size
            path.unlink(missing_ok=True)
