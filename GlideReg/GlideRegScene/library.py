"""Finds GlideRegLib: beside the module when installed, beside its folder in a checkout."""

import importlib.util
import sys
from pathlib import Path


def makeLibraryImportable() -> Path:
    """Puts the folder that holds GlideRegLib on the import path if it is not there; returns it.

    The library that came with the module goes before one that pip installed. Raises RuntimeError
    with one sentence when it is nowhere.
    """
    module = Path(__file__).resolve().parents[1]
    for folder in (module, module.parent):
        if (folder / "GlideRegLib" / "__init__.py").is_file():
            _makeImportable(folder)
            return folder
    found = importlib.util.find_spec("GlideRegLib")
    if found is not None and found.origin:
        return Path(found.origin).resolve().parents[1]
    raise RuntimeError(
        "GlideRegLib, the library of this module, was found neither beside the module nor beside "
        f"its folder ({module}); install the extension again, or keep the checkout whole."
    )


def availableProfiles() -> dict[str, Path]:
    """The library's ``available_profiles`` with those in this module's ``Resources/profiles``: the
    name of every profile of criteria that can be chosen, and its file."""
    from GlideRegLib.assurance.profile import available_profiles

    return available_profiles(Path(__file__).resolve().parents[1] / "Resources" / "profiles")


def _makeImportable(folder: Path) -> None:
    found = importlib.util.find_spec("GlideRegLib")
    if found is None:
        # At the end: nothing of Slicer may be shadowed by a file of the checkout.
        sys.path.append(str(folder))
    elif found.origin and Path(found.origin).resolve().parents[1] != folder:
        sys.path.insert(0, str(folder))
