"""Fixtures of the scene tests: real MRML scenes, pictures off screen, the real data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTING = str(Path(__file__).resolve().parents[1])
if _TESTING not in sys.path:
    sys.path.insert(0, _TESTING)

import slicer_harness  # noqa: E402
from slicer_harness.data import pictures_folder, shared_data_folder  # noqa: E402
from slicer_harness.views import check_rendering, pin_rendering  # noqa: E402

pin_rendering()
if hasattr(slicer_harness, "install"):
    slicer_harness.install(qt=False)

from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402


@pytest.fixture
def scene() -> Iterator[SceneHarness]:
    """A fresh scene with logics and view nodes, as ``slicer.mrmlScene``; closed afterward."""
    harness = fresh_scene()
    yield harness
    harness.close()


@pytest.fixture(scope="session")
def can_render() -> None:
    """Fails with a sentence where nothing can be drawn; VTK would end the process."""
    problem = check_rendering()
    if problem:
        pytest.fail(problem)


@pytest.fixture
def pictures(tmp_path: Path, can_render: None) -> Path:
    """The folder for the pictures of a test: ``$GLIDEREG_PICTURES``, else a temporary one."""
    return pictures_folder(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data; missing data fails the test on CI and skips it elsewhere."""
    return shared_data_folder()
