"""Shared fixtures: one thread, one seed, and the real data through one helper."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_pair import make_small_pair

from GlideRegLib.sample_data.nodule_phantom import NodulePair, make_nodule_phantom
from GlideRegLib.sample_data.phantom import PhantomPair
from slicer_harness.data import shared_data_folder

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data; missing data fails the test on CI and skips it elsewhere."""
    return shared_data_folder()


@pytest.fixture(scope="session")
def small_pair() -> PhantomPair:
    """A small phantom pair with its truth, in memory."""
    return make_small_pair()


@pytest.fixture(scope="session")
def small_files(small_pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same pair as files: fixed, moving, labels, landmarks."""
    return small_pair.save(tmp_path_factory.mktemp("small-pair"))


@pytest.fixture(scope="session")
def nodule_pair() -> NodulePair:
    """The follow-up phantom with 17 nodules at 1.5 mm, with its truth; made once (about 10 s)."""
    return make_nodule_phantom()
