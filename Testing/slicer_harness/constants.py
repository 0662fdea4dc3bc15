"""A remedy (tests only, not shipped) for what PySide6 does to True and None."""

from __future__ import annotations

import ctypes
import sys


def keep_constants_alive() -> None:
    """Enough references to True and None for all tests together.

    PySide6 6.12 gives True back from `emit`, and None from some methods, without counting the
    reference. Before Python 3.12, where both became immortal, some ten thousand calls would end the
    interpreter ("bool_dealloc"). The list is never freed.
    """
    if sys.version_info < (3, 12):
        kept = [constant for constant in (True, None) for _ in range(2_000_000)]
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
