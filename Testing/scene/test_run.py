"""The run with the real worker process: success, cancel, crash, and the scene as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import slicer
import vtk
from known_fields import linear_node, markups_node, rotation, turn_and_shift

from GlideReg import GlideRegLogic
from GlideRegLib.errors import GlideRegError, InputError, SettingsError
from GlideRegLib.settings import Settings
from GlideRegRun import folders
from GlideRegRun import registration as run_module
from GlideRegRun.dependencies import MissingDependency
from GlideRegRun.registration import ProgressUpdate
from GlideRegScene import transforms
from GlideRegScene.inputs import Request
from GlideRegScene.landmarks import tableErrors
from GlideRegScene.self_test import makeShiftedPair
from slicer_harness import slicer_parts
from slicer_harness.scene import SceneHarness

LOCAL = {"features": {"encoder": "none"}, "threads": 1}
#: Long enough to be interrupted: the paper's optimizer with thousands of steps.
LONG = {**LOCAL, "refine": {"solver": "adam", "adam_iterations": 9000}}


@pytest.fixture(autouse=True)
def temporary(scene: SceneHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slicer's temporary folder, empty, to see what a run leaves there."""
    folder = tmp_path / "slicer-temporary"
    folder.mkdir()
    monkeypatch.setattr(folders, "temporaryFolder", lambda: str(folder))
    return folder


@pytest.fixture
def pair(scene: SceneHarness):
    """A small synthetic pair with a known shift."""
    return makeShiftedPair()


def node_ids() -> set[str]:
    return {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}


def started(pair, settings: dict = LONG):
    """A run that is under way: it has reported a stage."""
    chosen = Settings.from_dict({"preset_name": "fast", **settings})
    request = Request(pair[0], pair[1], chosen.to_dict())
    seen: list[ProgressUpdate] = []
    run = run_module.Registration(request, GlideRegLogic().library, onProgress=seen.append)
    run.start()
    deadline = time.monotonic() + 60
    while not any(update.stage == "Refining" for update in seen):
        assert time.monotonic() < deadline, run.log
        assert not run.poll(), run.log
        time.sleep(0.05)
    return run


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that waits to be collected by the system does not."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def until_over(run, seconds: float = 30.0) -> float:
    """Polls until the run is over; the seconds that it took."""
    begin = time.monotonic()
    while not run.poll():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)
    return time.monotonic() - begin


# --- success --------------------------------------------------------------------------------------


def test_register_returns_a_transform_that_finds_the_shift_both_ways(pair, temporary) -> None:
    fixed, moving, shift = pair
    before = [np.array(slicer.util.arrayFromVolume(node)) for node in (fixed, moving)]
    updates: list[ProgressUpdate] = []
    node = GlideRegLogic().register(
        fixed, moving, preset="fast", settings=LOCAL, onProgress=updates.append
    )
    points = np.array([[30.0, -20.0, 10.0], [60.0, -10.0, 5.0]])  # LPS
    moved = transforms.fixedToMoving(node, points)
    assert np.linalg.norm(moved - points - shift * (-1, -1, 1), axis=1).max() < 0.6
    np.testing.assert_allclose(transforms.movingToFixed(node, moved), points, atol=1e-3)
    for array, volume in zip(before, (fixed, moving), strict=True):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), array)
        assert volume.GetParentTransformNode() is None
    fractions = [update.fraction for update in updates]
    assert fractions == sorted(fractions)
    assert {"Reading", "Refining", "Saving"} <= {update.stage for update in updates}
    assert any(update.secondsLeft is not None for update in updates)
    assert list(temporary.iterdir()) == []


def test_a_method_of_the_literature_gives_the_same_kind_of_result(pair) -> None:
    fixed, moving, shift = pair
    settings = {**LOCAL, "method": "convexadam"}
    node = GlideRegLogic().register(fixed, moving, preset="fast", settings=settings)
    points = np.array([[30.0, -20.0, 10.0], [60.0, -10.0, 5.0]])  # LPS
    moved = transforms.fixedToMoving(node, points)
    assert np.linalg.norm(moved - points - shift * (-1, -1, 1), axis=1).max() < 1.0
    np.testing.assert_allclose(transforms.movingToFixed(node, moved), points, atol=1e-3)
    assert json.loads(node.GetAttribute(transforms.ATTRIBUTE))["method"] == "convexadam"


def test_what_is_seen_is_what_is_registered_also_under_transforms(pair) -> None:
    """The moving volume is displaced by its parent; the result is in world coordinates."""
    fixed, moving, shift = pair
    parent = linear_node(turn_and_shift())
    moving.SetAndObserveTransformNodeID(parent.GetID())
    node = GlideRegLogic().register(fixed, moving, preset="fast", settings=LOCAL)
    points = np.array([[30.0, -20.0, 10.0], [60.0, -10.0, 5.0]])  # LPS
    ras = points * (-1, -1, 1) + shift
    expected = (np.c_[ras, [1, 1]] @ turn_and_shift().T)[:, :3] * (-1, -1, 1)
    found = transforms.fixedToMoving(node, points)
    assert np.linalg.norm(found - expected, axis=1).max() < 0.8
    assert moving.GetParentTransformNode() is parent


def test_an_initial_transform_is_the_start(pair) -> None:
    """A half turn: no automatic start finds it, the given one does."""
    fixed, moving, shift = pair
    half_turn = np.eye(4)
    half_turn[:3, :3] = rotation(180, 2)
    ijk_to_ras = vtk.vtkMatrix4x4()
    moving.GetIJKToRASMatrix(ijk_to_ras)
    turned = half_turn @ slicer.util.arrayFromVTKMatrix(ijk_to_ras)
    slicer.util.updateVTKMatrixFromArray(ijk_to_ras, turned)
    moving.SetIJKToRASMatrix(ijk_to_ras)
    start = linear_node(np.linalg.inv(half_turn), "Start")  # puts the moving volume back
    node = GlideRegLogic().register(
        fixed, moving, preset="fast", settings=LOCAL, initialTransform=start
    )
    points = np.array([[30.0, -20.0, 10.0], [60.0, -10.0, 5.0]])
    ras = points * (-1, -1, 1) + shift
    expected = (np.c_[ras, [1, 1]] @ half_turn.T)[:, :3] * (-1, -1, 1)
    assert np.linalg.norm(transforms.fixedToMoving(node, points) - expected, axis=1).max() < 0.8


def test_landmarks_give_a_table_whose_mean_is_the_librarys(pair) -> None:
    fixed, moving, shift = pair
    points = np.array([[30.0, -20.0, 10.0], [60.0, -10.0, 5.0], [-40.0, 0.0, 0.0]])
    finished: list = []
    GlideRegLogic().register(
        fixed,
        moving,
        preset="fast",
        settings=LOCAL,
        fixedLandmarks=markups_node(points, "F"),
        movingLandmarks=markups_node(points + shift * (-1, -1, 1), "M"),
        onFinished=finished.append,
    )
    result = finished[0].result
    errors = tableErrors(result.landmarkTable)
    by_library = result.report["quality"]["tre_mm"]
    assert errors.after.mean() == pytest.approx(by_library["after"]["mean"], abs=0.001)
    assert errors.before.mean() == pytest.approx(by_library["before"]["mean"], abs=0.001)


# --- cancel, kill, crash --------------------------------------------------------------------------


def test_cancel_ends_the_whole_tree_within_two_seconds_and_leaves_nothing(pair, temporary) -> None:
    before = node_ids()
    run = started(pair)
    process = psutil.Process(run._process._process.pid)
    tree = [process, *process.children(recursive=True)]
    run.cancel()
    assert until_over(run) < 2.0
    assert run.state == "cancelled"
    assert run.error == ""
    assert not [process for process in tree if is_alive(process)]
    assert node_ids() == before
    assert list(temporary.iterdir()) == []


def test_a_worker_that_does_not_listen_is_ended_all_the_same(pair) -> None:
    run = started(pair)
    process = psutil.Process(run._process._process.pid)
    process.suspend()  # it cannot look for the cancel file any more
    run.cancel()
    assert until_over(run) < 2.0
    assert run.state == "cancelled"


def test_a_killed_worker_gives_a_sentence_about_memory(pair, temporary) -> None:
    before = node_ids()
    run = started(pair)
    psutil.Process(run._process._process.pid).kill()  # as the system does when memory runs out
    until_over(run)
    assert run.state == "failed"
    assert "memory ran out" in run.error and "Fast" in run.error
    assert node_ids() == before
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_crash_gives_a_sentence_and_keeps_the_log(pair) -> None:
    run = started(pair)
    os.kill(run._process._process.pid, signal.SIGSEGV)
    until_over(run)
    assert run.state == "failed"
    assert "ended unexpectedly (exit code -11)" in run.error
    assert any(line.startswith("Refining") for line in run.log)


def test_a_launchers_child_is_ended_with_it(pair, tmp_path: Path, monkeypatch) -> None:
    """PythonSlicer is a launcher: the Python that it starts must not survive a cancel."""
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\n{sys.executable} "$@"\nexit $?\n', encoding="utf-8")
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = started(pair)
    children = psutil.Process(run._process._process.pid).children(recursive=True)
    assert children, "the launcher runs a child of its own"
    for child in children:
        child.suspend()
    run.cancel()
    assert until_over(run) < 2.0
    assert not [child for child in children if is_alive(child)]


def test_a_launcher_that_hides_how_its_child_ended_gives_the_sentence_about_memory(
    pair, tmp_path: Path, monkeypatch
) -> None:
    """CTK's launcher prints this and exits with 1 whatever ended the Python that it started."""
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(
        f'#!/bin/sh\n{sys.executable} "$@"\ncode=$?\n'
        'if [ $code -gt 128 ]; then echo "[p] exit abnormally - Report the problem."; exit 1; fi\n'
        "exit $code\n",
        encoding="utf-8",
    )
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = started(pair)
    for child in psutil.Process(run._process._process.pid).children():
        child.kill()
    until_over(run)
    assert run._process.returnCode == 1
    assert "memory ran out" in run.error


def test_what_a_crashed_slicer_left_behind_is_removed_by_the_next_run(pair, temporary) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    for name, owner in (("GlideReg-stale", gone.pid), ("GlideReg-mine", os.getpid())):
        (temporary / name).mkdir()
        (temporary / name / "owner").write_text(str(owner))
        (temporary / name / "fixed.mha").write_bytes(b"voxels of a patient")
    (temporary / "GlideReg-of-somebody").mkdir()
    run = started(pair)
    run.cancel()
    until_over(run)
    left = {path.name for path in temporary.iterdir()}
    assert left == {"GlideReg-mine", "GlideReg-of-somebody"}


def test_a_fault_in_a_callback_does_not_cost_the_result(pair) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a widget that is gone")

    node = GlideRegLogic().register(
        *pair[:2], preset="fast", settings=LOCAL, onProgress=fail, onFinished=fail
    )
    assert transforms.isOurs(node)


def test_cancelling_while_the_inputs_are_written_leaves_nothing(pair, temporary) -> None:
    chosen = Settings.from_dict({"preset_name": "fast", **LOCAL})
    run = run_module.Registration(Request(*pair[:2], chosen.to_dict()), GlideRegLogic().library)
    run.start()
    run.cancel()
    assert until_over(run) < 2.0
    assert run.state == "cancelled"
    run._writer.join()
    assert list(temporary.iterdir()) == []


def test_a_full_disk_gives_a_sentence(pair, temporary, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(GlideRegError, match=r"could not be started .*No space left on device"):
        GlideRegLogic().register(*pair[:2], preset="fast", settings=LOCAL)
    assert list(temporary.iterdir()) == []


# --- sentences ------------------------------------------------------------------------------------


def test_a_setting_out_of_range_is_refused_before_anything_starts(pair, temporary) -> None:
    with pytest.raises(SettingsError, match=r"spacing_mm must be 0\.5 to 8"):
        GlideRegLogic().register(*pair[:2], settings={"grid": {"spacing_mm": 99.0}})
    assert list(temporary.iterdir()) == []


def test_a_problem_of_the_request_is_the_error(pair) -> None:
    with pytest.raises(InputError, match="are the same"):
        GlideRegLogic().register(pair[0], pair[0])


def test_the_workers_sentences_name_roles_and_not_temporary_files(pair, temporary) -> None:
    slicer.util.arrayFromVolume(pair[1])[:] = 7
    pair[1].Modified()
    before = node_ids()
    with pytest.raises(GlideRegError, match=r"^The moving volume is constant") as caught:
        GlideRegLogic().register(*pair[:2], preset="fast", settings=LOCAL)
    assert str(temporary) not in str(caught.value)
    assert node_ids() == before
    assert list(temporary.iterdir()) == []


def test_names_of_nodes_reach_neither_log_nor_report(pair) -> None:
    fixed, moving, _ = pair
    fixed.SetName("DOE^JANE 1950")
    moving.SetName("DOE^JANE 1951")
    finished: list = []
    GlideRegLogic().register(
        fixed, moving, preset="fast", settings=LOCAL, onFinished=finished.append
    )
    run = finished[0]
    assert not [line for line in run.log if "DOE" in line]
    assert "DOE" not in str(run.result.report)
    assert "DOE" not in run.result.transform.GetAttribute(transforms.ATTRIBUTE)


def test_only_one_run_at_a_time(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(pair)
    monkeypatch.setattr(GlideRegLogic, "_running", run)
    with pytest.raises(InputError, match="A registration is running"):
        GlideRegLogic().register(*pair[:2], preset="fast", settings=LOCAL)
    run.cancel()
    until_over(run)


def test_a_declined_installation_starts_nothing(pair, temporary) -> None:
    slicer_parts.installer.outcome = RuntimeError("declined")
    try:
        with pytest.raises(MissingDependency, match="nothing was installed"):
            GlideRegLogic().register(*pair[:2], preset="fast", settings=LOCAL)
    finally:
        slicer_parts.installer.reset()
    assert list(temporary.iterdir()) == []


# --- the scene closes -----------------------------------------------------------------------------


def test_a_scene_that_closes_gets_no_result(pair, scene: SceneHarness, temporary) -> None:
    run = started(pair)
    run.abandon()
    scene.scene.Clear(0)
    after = node_ids()
    assert until_over(run) < 2.0
    assert run.state == "cancelled"
    assert node_ids() == after
    assert list(temporary.iterdir()) == []


def test_an_application_that_ends_takes_the_run_along_at_once(pair) -> None:
    run = started(pair)
    pid = run._process._process.pid
    begin = time.monotonic()
    run.kill()
    assert time.monotonic() - begin < 1.0
    assert run.state == "cancelled"
    assert not psutil.pid_exists(pid)
