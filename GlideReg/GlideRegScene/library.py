"""Finds GlideRegLib: beside the module when installed, beside its folder in a checkout."""

import importlib.util
import sys
from pathlib import Path


def makeLibraryImportable() -> Path:
    """Puts the folder that holds GlideRegLib on the import path if it is not there; returns it.

    Raises RuntimeError with one sentence when the library is nowhere.
    """
    found = importlib.util.find_spec("GlideRegLib")
    if found is not None and found.origin:
        return Path(found.origin).resolve().parents[1]
    module = Path(__file__).resolve().parents[1]
    for folder in (module, module.parent):
        if (folder / "GlideRegLib" / "__init__.py").is_file():
            # At the end: nothing of Slicer may be shadowed by a file of the checkout.
            sys.path.append(str(folder))
            return folder
    raise RuntimeError(
        "GlideRegLib, the library of this module, was found neither beside the module nor beside "
        f"its folder ({module}); install the extension again, or keep the checkout whole."
    )
