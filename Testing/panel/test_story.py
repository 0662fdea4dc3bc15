"""The whole story on the real follow-up pair, without a mock of the library: from two volumes and
a click to a result that is assessed by another click, saved, reloaded, exported, and equal to the
command line's.

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
from GlideRegScene.quality import tables
from slicer_harness import slicer_parts
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

    # Can it be trusted? Another click: the table of verdicts is about this transform.
    verdicts = assessed_by_a_click(module, expected, by_itk)
    report_by_a_click(module, tmp_path / "report")

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
    reopened.openSection("qualitySection")
    assert rows(reopened.ui.qualityMeasuresTable) == verdicts
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


def assessed_by_a_click(module: OpenModule, tre: dict, by_itk: sitk.Transform) -> list[list[str]]:
    """Chooses the lungs of both scans, presses Assess, and gives the rows of the table: verdict,
    measure, region, value. Nothing but the structures is chosen: the rest follows from Register."""
    ui, folder = module.ui, shared_data_folder() / "lung_followup"
    masks = {
        role: sitk.ReadImage(str(folder / f"{name}_mask.mha"))
        for role, name in (("fixed", "baseline"), ("moving", "followup"))
    }
    module.openSection("qualitySection")
    assert not ui.qualityContents.visible  # nothing was assessed yet
    ui.qualityFixedStructuresSelector.setCurrentNode(lung_of(masks["fixed"], "Baseline lung"))
    ui.qualityMovingStructuresSelector.setCurrentNode(lung_of(masks["moving"], "Follow-up lung"))
    module.processEvents()
    assert ui.assessButton.enabled, ui.assessButton.toolTip
    module.click("assessButton")
    module.waitForTheRun(120)
    found = rows(ui.qualityMeasuresTable)
    by_measure = {(texts[1], texts[2]): texts for texts in found}
    assessment = tables.assessmentOf(module.parameters.qualityTable)
    assert ui.qualityStatusLabel.text == f"Assessed: {assessment.verdict.value}."
    assert {"compliant", "not verified"} <= {texts[0] for texts in found}  # no backward transform

    # Landmarks as Register reported them; the lungs as SimpleITK carries them.
    mean = assessment.find("tre_mean")
    assert mean.value == pytest.approx(tre["mean"], abs=0.01)
    assert by_measure["TRE, mean", "Landmarks"][3].endswith(f"→ {mean.value:.2f} mm")
    carried = sitk.Resample(masks["moving"], masks["fixed"], by_itk, sitk.sitkNearestNeighbor, 0)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(masks["fixed"] > 0, carried > 0)
    dice = assessment.find("dice", "Lung")
    assert dice.value == pytest.approx(overlap.GetDiceCoefficient(), abs=2e-3)
    assert dice.value > 0.95 > 0.8 > dice.before
    assert by_measure["Dice", "Lung"][0] == "compliant"
    assert by_measure["Folded voxels", "Body"][0] == "compliant"
    return found


def report_by_a_click(module: OpenModule, folder: Path) -> None:
    """Writes the page of the assessment."""
    slicer_parts.dialogs.answers["QFileDialog"] = str(folder)
    module.click("exportQualityButton")
    module.waitForTheRun(120)
    page = (folder / "assessment.html").read_text(encoding="utf-8")
    mean = tables.assessmentOf(module.parameters.qualityTable).find("tre_mean")
    assert mean.text in page and "Lung" in page and "Baseline CT" not in page


def lung_of(mask: sitk.Image, name: str):
    """A lung mask as a segmentation with one segment."""
    labels = slicer.util.addVolumeFromArray(
        (sitk.GetArrayFromImage(mask) > 0).astype(np.uint8),
        name="labels",
        nodeClassName="vtkMRMLLabelMapVolumeNode",
    )
    labels.SetIJKToRASMatrix(transforms.rasMatrix(mask))
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, segmentation)
    slicer.mrmlScene.RemoveNode(labels)
    segmentation.GetSegmentation().GetNthSegment(0).SetName("Lung")
    return segmentation


def rows(widget) -> list[list[str]]:
    """The texts of a table."""
    columns = range(widget.columnCount)
    return [[widget.item(row, k).text() for k in columns] for row in range(widget.rowCount)]


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
