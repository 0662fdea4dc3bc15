"""Where GlideReg keeps what it can fetch or compute again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """``$GLIDEREG_CACHE``, else the place for caches on this system. It may not exist yet."""
    named = os.environ.get("GLIDEREG_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("GlideReg", appauthor=False))
