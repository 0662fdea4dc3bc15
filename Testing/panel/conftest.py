"""Fixtures of the panel tests: Slicer's widgets stood in for, a fresh real MRML scene per test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ["QT_QPA_PLATFORM"] = "offscreen"
_TESTING = str(Path(__file__).resolve().parents[1])
if _TESTING not in sys.path:
    sys.path.insert(0, _TESTING)

import slicer_harness  # noqa: E402

slicer_harness.install()

from driving import FinishedRun, OpenModule, makePair  # noqa: E402

from slicer_harness import slicer_parts  # noqa: E402
from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_fails_unseen() -> Iterator[None]:
    """Every test starts with no dialogs recorded; an error in a slot or an observer fails it."""
    slicer_harness.unhandled.clear()
    slicer_parts.dialogs.reset()
    slicer_parts.installer.reset()
    yield
    assert not slicer_harness.unhandled, f"raised in a slot: {slicer_harness.unhandled}"


@pytest.fixture
def scene() -> Iterator[SceneHarness]:
    """A fresh scene with logics and view nodes, as `slicer.mrmlScene`; closed afterward."""
    harness = fresh_scene()
    yield harness
    harness.close()


@pytest.fixture
def module(scene: SceneHarness) -> Iterator[OpenModule]:
    """GlideReg's real panel in the fresh scene, as after opening the module."""
    slicer_parts.slicer.app.application_logic = scene.application
    opened = OpenModule()
    yield opened
    opened.close()
    slicer_parts.slicer.app.application_logic = None


@pytest.fixture
def pair(scene: SceneHarness) -> SimpleNamespace:
    """A small synthetic pair that is registered in seconds, with landmarks."""
    return makePair()


@pytest.fixture(scope="session")
def finishedRun(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One real run by clicks, saved; it is made once, before the scene of the test that asks."""
    harness = fresh_scene()
    module = OpenModule()
    try:
        return FinishedRun.make(module, tmp_path_factory.mktemp("run") / "finished.mrb")
    finally:
        module.close()
        harness.close()


@pytest.fixture
def finished(finishedRun: FinishedRun, module: OpenModule) -> OpenModule:
    """The module with the result of a real run, loaded from the saved scene."""
    assert slicer_parts.slicer.mrmlScene.ReadFromMRB(str(finishedRun.path))
    module.processEvents()
    return module
