"""Finds the real development data (CT, MR, encoder weights), which never lies in the project."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError


def data_folder() -> Path:
    """The folder with the real data: ``$GLIDEREG_DATA``, else ``../shared/data`` of a checkout.

    Raises :class:`InputError` when neither is there.
    """
    named = os.environ.get("GLIDEREG_DATA")
    checkout = Path(__file__).resolve().parents[2]
    for folder in [Path(named)] if named else [checkout.parent / "shared" / "data"]:
        if (folder / "MANIFEST.md").is_file():
            return folder.resolve()
    raise InputError(
        f"The development data is not at {named or checkout.parent / 'shared' / 'data'}; "
        "set GLIDEREG_DATA to the folder that holds its MANIFEST.md."
    )
