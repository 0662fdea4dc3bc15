"""The whole story on the real follow-up pair, without a mock of the library: from two volumes and
a click to a result that is saved, reloaded, exported, and equal to the command line's.

Widgets are stand-ins (see Testing/slicer_harness); scene, worker, data and numbers are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from driving import OpenModule
from pictures.real_pair import load_pair

import GlideReg
from GlideRegScene import shown, transforms
from GlideRegScene.inputs import landmarkPairs
from GlideRegScene.landmarks import landmarkErrors, tableErrors
from slicer_harness.data import shared_data_folder
from slicer_harness.scene import SceneHarness, fresh_scene


@pytest.fixture(scope="module")
def by_command_line(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same pair and settings through ``glidereg register``: its result.json."""
    folder = shared_data_folder() / "lung_followup"
    out = tmp_path_factory.mktemp("command-line") / "out"
    command = [sys.executable, "-m", "GlideRegLib.cli", "register"]
    command += [str(folder / "baseline.mha"), str(folder / "followup.mha"), "-o", str(out)]
    command += ["--fixed-landmarks", str(folder / "baseline_points51.txt")]
    command += ["--moving-landmarks", str(folder / "followup_points51.txt")]
    command += ["--preset", "fast", "--encoder", "none"]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    )
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def test_from_two_volumes_and_a_click_to_a_result_that_lasts(
    scene: SceneHarness,
    by_command_line: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "SampleData", MagicMock())  # a module of the desktop
    expected = by_command_line["quality"]["tre_mm"]["after"]

    # A clinician loads two scans and their landmarks, opens the module and fills the panel.
    nodes = load_pair()
    module = OpenModule()
    ui = module.ui
    ui.fixedVolumeSelector.setCurrentNode(nodes["fixed"])
    ui.movingVolumeSelector.setCurrentNode(nodes["moving"])
    ui.fixedLandmarksSelector.setCurrentNode(nodes["fixedLandmarks"])
    ui.movingLandmarksSelector.setCurrentNode(nodes["movingLandmarks"])
    module.click("fastButton")
    module.openSection("methodSection")
    module.openSection("advancedSection")
    module.pick("encoderCombo", "No encoder")
    assert ui.applyButton.text.startswith("Register")
    assert ui.applyButton.enabled

    # One click; progress is seen, and the panel is alive meanwhile.
    percents, lines = [], set()
    module.click("applyButton")

    def over() -> bool:
        percents.append(ui.progressBar.value)
        lines.add(ui.statusLabel.text.split(" ")[0])
        return module.logic.running is None

    module.waitUntil(over, 120)
    module.processEvents()
    assert percents[:-1] == sorted(percents[:-1])
    assert {"Aligning", "Refining"} <= lines

    # The result: transform, warped volume, table, and the same numbers as the command line.
    transform = module.parameters.transform
    warped = module.parameters.warpedVolume
    table = transform.GetNodeReference("GlideRegLandmarkTable")
    errors = tableErrors(table)
    assert errors.after.mean() == pytest.approx(expected["mean"], abs=0.01)
    assert np.median(errors.after) == pytest.approx(expected["median"], abs=0.01)
    assert f"{expected['mean']:.2f}" in module.resultTexts()["treMean"]
    before = by_command_line["quality"]["tre_mm"]["before"]["mean"]
    assert errors.before.mean() == pytest.approx(before, abs=0.01)

    # The deformation grid is drawn when it is ticked.
    module.openSection("displaySection")
    module.click("deformation2DCheck")
    assert transform.GetDisplayNode().GetVisibility2D()
    assert shown.overlay(transform) == "after"

    # The exported transform means the same to SimpleITK: landmarks, and every warped voxel.
    pairs = landmarkPairs(nodes["fixedLandmarks"], nodes["movingLandmarks"])
    by_itk = exported(transform, tmp_path / "transform.h5")
    moved = np.array([by_itk.TransformPoint(p) for p in pairs.fixed.tolist()])
    tre = np.linalg.norm(moved - pairs.moving, axis=1).mean()
    assert tre == pytest.approx(expected["mean"], abs=0.01)
    same_voxels(warped, by_itk)

    # Saved and loaded into another session: the same numbers.
    bundle = tmp_path / "follow-up.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(bundle))
    module.close()
    again = fresh_scene()
    GlideReg.GlideReg(SimpleNamespace(path=GlideReg.__file__))  # as Slicer does at its start
    slicer.app.emit("startupCompleted()")
    assert again.scene.ReadFromMRB(str(bundle))
    loaded = slicer.util.getNode(transform.GetName())
    loaded_pairs = landmarkPairs(
        slicer.util.getNode("Baseline landmarks"), slicer.util.getNode("Follow-up landmarks")
    )
    after = landmarkErrors(loaded, loaded_pairs).after
    np.testing.assert_allclose(np.sort(after)[::-1], errors.after, atol=0.01)
    assert after.mean() == pytest.approx(expected["mean"], abs=0.01)
    moving = transforms.fixedToMoving(loaded, pairs.fixed)
    back = transforms.movingToFixed(loaded, moving)
    assert np.abs(back - pairs.fixed).max() < 1e-3
    reopened = OpenModule()
    assert f"{expected['mean']:.2f}" in reopened.resultTexts()["treMean"]
    reopened.close()
    again.close()


def test_a_scene_read_by_a_slicer_without_this_module_differs_by_little(
    scene: SceneHarness, tmp_path: Path
) -> None:
    """Slicer reads grids with cubic interpolation: with our lattice that stays under 0.2 mm."""
    nodes = load_pair()
    transform = GlideReg.GlideRegLogic().register(
        nodes["fixed"], nodes["moving"], preset="fast", settings={"features": {"encoder": "none"}}
    )
    pairs = landmarkPairs(nodes["fixedLandmarks"], nodes["movingLandmarks"])
    linear = landmarkErrors(transform, pairs).after
    transform.GetTransformFromParent().SetInterpolationModeToCubic()
    cubic = landmarkErrors(transform, pairs).after
    assert np.abs(cubic - linear).max() < 0.2
    assert cubic.mean() == pytest.approx(linear.mean(), abs=0.01)


def exported(node, path: Path) -> sitk.Transform:
    """A transform node written by Slicer's own storage node and read by SimpleITK."""
    node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    return sitk.ReadTransform(str(path))


def same_voxels(warped, transform: sitk.Transform) -> None:
    """Our warped volume is what SimpleITK resamples from the original files."""
    folder = shared_data_folder() / "lung_followup"
    fixed = sitk.ReadImage(str(folder / "baseline.mha"))
    moving = sitk.ReadImage(str(folder / "followup.mha"), sitk.sitkFloat32)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -1024.0)
    )
    found = slicer.util.arrayFromVolume(warped)
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert np.quantile(difference, 0.999) <= 1.0  # HU; rounded to integers
    assert (found == -1024).any()  # outside the moving scan: air, not gray
