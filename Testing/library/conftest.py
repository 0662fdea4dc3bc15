"""Shared fixtures: one thread, one seed, and the real data through one helper."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from GlideRegLib.errors import InputError
from GlideRegLib.sample_data.local import data_folder

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data; missing data fails the test on CI and skips it elsewhere."""
    try:
        return data_folder()
    except InputError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
