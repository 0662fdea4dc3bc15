"""Shared fixtures: one thread, one seed, and the real data through one helper."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from small_pair import make_small_pair

from GlideRegLib.errors import InputError
from GlideRegLib.sample_data.local import data_folder
from GlideRegLib.sample_data.phantom import PhantomPair

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


@pytest.fixture(scope="session")
def small_pair() -> PhantomPair:
    """A small phantom pair with its truth, in memory."""
    return make_small_pair()


@pytest.fixture(scope="session")
def small_files(small_pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same pair as files: fixed, moving, labels, landmarks."""
    return small_pair.save(tmp_path_factory.mktemp("small-pair"))
