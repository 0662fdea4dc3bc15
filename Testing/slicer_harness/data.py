"""The real data and the folder for pictures, as fixtures of several conftests use them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from GlideRegLib.errors import InputError
from GlideRegLib.sample_data.local import data_folder


def shared_data_folder() -> Path:
    """The folder of the real data; missing data fails the test on CI and skips it elsewhere."""
    try:
        return data_folder()
    except InputError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def pictures_folder(otherwise: Path) -> Path:
    """Where tests write their pictures: ``$GLIDEREG_PICTURES``, else a temporary folder."""
    named = os.environ.get("GLIDEREG_PICTURES")
    folder = Path(named) if named else otherwise
    folder.mkdir(parents=True, exist_ok=True)
    return folder
