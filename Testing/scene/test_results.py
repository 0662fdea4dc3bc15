"""What a finished run puts into the scene: complete, right, and nothing at all when it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from known_fields import (
    field_image,
    linear_node,
    markups_node,
    oblique_image,
    some_points,
    turn_and_shift,
    volume_node,
)

from GlideRegLib.errors import InputError
from GlideRegScene import landmarks, results, transforms
from GlideRegScene.inputs import Request, worldMatrix
from GlideRegScene.results import forgetOutputsOfOthers, importResults, readFiles
from slicer_harness.scene import SceneHarness

BACKGROUND = -1024


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as the worker writes them, for the known field and the oblique fixed grid."""
    folder = tmp_path_factory.mktemp("output")
    sitk.WriteImage(field_image(), str(folder / "displacement.mha"))
    field = sitk.DisplacementFieldTransform(sitk.Cast(field_image(), sitk.sitkVectorFloat64))
    warped = sitk.Resample(
        oblique_image(), oblique_image(), field, sitk.sitkLinear, float(BACKGROUND)
    )
    sitk.WriteImage(sitk.Cast(warped, sitk.sitkInt16), str(folder / "warped.mha"))
    ones = np.full(tuple(reversed(oblique_image().GetSize())), 1.1)
    sitk.WriteImage(oblique_image(ones), str(folder / "jacobian.mha"))
    report = {
        "quality": {"folding_percent": {"body": 0.0}},
        "encoder": {"name": "none"},
        "cost": {"seconds": {"total": 5.5}},
        "modality": "ct",
        "provenance": {
            "settings": {"preset_name": "fast"},
            "versions": {"glidereg": "0.1.0"},
            "device": "cpu",
        },
    }
    (folder / "result.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


@pytest.fixture
def request_(scene: SceneHarness) -> Request:
    fixed, moving = volume_node(oblique_image(), "Current"), volume_node(oblique_image(), "Prior")
    moving.CreateDefaultDisplayNodes()
    moving.GetDisplayNode().SetAutoWindowLevel(False)
    moving.GetDisplayNode().SetWindowLevel(1400, -500)
    return Request(fixed, moving)


def node_ids(scene: SceneHarness) -> set[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLNode", scene.scene)
    return {node.GetID() for node in nodes}


def bring_back(request_: Request, output: Path):
    """As after a run during which the fixed volume stayed where it was."""
    return importResults(request_, readFiles(output), worldMatrix(request_.fixedVolume))


# --- what is there --------------------------------------------------------------------------------


def test_the_transform_is_a_grid_from_parent_with_its_volumes_referenced(request_, output) -> None:
    node = bring_back(request_, output).transform
    assert node.GetName() == "Prior to Current"
    assert node.GetTransformFromParent().GetClassName() == "vtkOrientedGridTransform"
    assert node.GetNodeReference(node.GetFixedNodeReferenceRole()) is request_.fixedVolume
    assert node.GetNodeReference(node.GetMovingNodeReferenceRole()) is request_.movingVolume
    field = sitk.DisplacementFieldTransform(sitk.Cast(field_image(), sitk.sitkVectorFloat64))
    points = some_points()
    expected = np.array([field.TransformPoint(p) for p in points.tolist()])
    np.testing.assert_allclose(transforms.fixedToMoving(node, points), expected, atol=1e-3)


def test_the_warped_volume_is_on_the_fixed_grid_and_shown_like_the_moving_one(
    request_, output
) -> None:
    warped = bring_back(request_, output).warpedVolume
    assert warped.GetName() == "Prior warped to Current"
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "warped.mha")))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(warped), expected)
    assert (expected == BACKGROUND).any()  # outside the moving image: air, not gray
    for i in range(3):
        assert warped.GetSpacing()[i] == request_.fixedVolume.GetSpacing()[i]
        assert warped.GetOrigin()[i] == request_.fixedVolume.GetOrigin()[i]
    assert warped.GetParentTransformNode() is None
    display = warped.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (1400, -500)


def test_the_warped_volume_lies_on_a_fixed_volume_under_a_transform(request_, output) -> None:
    parent = linear_node(turn_and_shift())
    request_.fixedVolume.SetAndObserveTransformNodeID(parent.GetID())
    warped = bring_back(request_, output).warpedVolume
    assert warped.GetParentTransformNode() is parent
    assert warped.GetOrigin() == request_.fixedVolume.GetOrigin()


def test_a_resampled_fixed_volume_gives_a_grid_of_its_own(request_, output) -> None:
    request_.fixedVolume.SetAndObserveTransformNodeID(linear_node(turn_and_shift()).GetID())
    warped = importResults(request_, readFiles(output), None).warpedVolume
    assert warped.GetParentTransformNode() is None
    image = sitk.ReadImage(str(output / "warped.mha"))
    bounds = np.zeros(6)
    warped.GetRASBounds(bounds)
    center = np.array([(bounds[0] + bounds[1]), (bounds[2] + bounds[3]), bounds[4] + bounds[5]]) / 2
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    np.testing.assert_allclose(center, np.array(middle) * (-1, -1, 1), atol=0.01)


def test_a_fixed_volume_that_moved_during_the_run_leaves_the_result_where_it_was(
    request_, output
) -> None:
    before = worldMatrix(request_.fixedVolume)
    request_.fixedVolume.SetAndObserveTransformNodeID(linear_node(turn_and_shift()).GetID())
    warped = importResults(request_, readFiles(output), before).warpedVolume
    assert warped.GetParentTransformNode() is None
    np.testing.assert_allclose(worldMatrix(warped), before, atol=1e-4)


def test_the_measures_stay_with_the_transform_node(request_, output) -> None:
    node = bring_back(request_, output).transform
    stored = json.loads(node.GetAttribute(transforms.ATTRIBUTE))
    assert stored["preset"] == "fast"
    assert stored["quality"]["folding_percent"]["body"] == 0.0
    assert "Research use only" in node.GetDescription()


def test_results_are_grouped_beside_the_fixed_volume(request_, output, scene) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene.scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, request_.fixedVolume)
    result = bring_back(request_, output)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result.transform))
    assert hierarchy.GetItemName(folder) == "GlideReg Prior to Current"
    assert hierarchy.GetItemParent(folder) == study
    for node in (result.warpedVolume, result.jacobian):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == folder


def test_every_node_that_appears_is_reported(request_, output, scene) -> None:
    before = node_ids(scene)
    result = bring_back(request_, output)
    assert {node.GetID() for node in result.created} == node_ids(scene) - before
    assert result.transform in result.created


def test_folding_looks_like_nothing_else_in_the_jacobian_overlay(request_, output) -> None:
    node = bring_back(request_, output).jacobian
    table = node.GetDisplayNode().GetColorNode().GetLookupTable()
    low, high = node.GetDisplayNode().GetWindowLevelMin(), node.GetDisplayNode().GetWindowLevelMax()
    assert (low, high) == (0.0, 3.0)

    def color(determinant: float) -> np.ndarray:
        index = round((determinant - low) / (high - low) * 255)
        return np.array(table.GetTableValue(int(np.clip(index, 0, 255)))[:3])

    np.testing.assert_array_equal(color(-0.3), (1, 0, 1))
    assert color(0.5)[2] > color(0.5)[0] + 0.3  # shrinks: blue
    assert color(1.5)[0] > color(1.5)[2] + 0.3  # grows: red
    assert color(1.0).min() > 0.9  # unchanged: white
    # Half and twice the volume are equally far from it.
    assert color(0.5).min() == pytest.approx(color(2.0).min(), abs=0.06)


# --- landmarks ------------------------------------------------------------------------------------


def with_landmarks(request_: Request, noise: float = 0.0) -> np.ndarray:
    """Adds 20 landmark pairs: the truth, with one wrong by 7 mm; returns the expected errors."""
    fixed = some_points(20)
    field = sitk.DisplacementFieldTransform(sitk.Cast(field_image(), sitk.sitkVectorFloat64))
    moving = np.array([field.TransformPoint(p) for p in fixed.tolist()])
    offsets = np.zeros((20, 3))
    offsets[:, 0] = np.linspace(0, 2, 20)
    offsets[7] = (0, 7, 0)
    request_.fixedLandmarks = markups_node(fixed, "F")
    request_.movingLandmarks = markups_node(moving + offsets, "M")
    request_.fixedLandmarks.SetNthControlPointLabel(7, "carina")
    return np.linalg.norm(offsets, axis=1)


def test_the_table_holds_the_errors_worst_first(request_, output) -> None:
    expected = with_landmarks(request_)
    table = bring_back(request_, output).landmarkTable
    errors = landmarks.tableErrors(table)
    np.testing.assert_allclose(errors.after, np.sort(expected)[::-1], atol=1e-3)
    label, position, worst = landmarks.worstLandmark(table)
    assert (label, round(worst, 2)) == ("carina", 7.0)
    np.testing.assert_allclose(position, some_points(20)[7] * (-1, -1, 1), atol=1e-6)


def test_the_plot_shows_both_curves_sorted(request_, output) -> None:
    with_landmarks(request_)
    result = bring_back(request_, output)
    chart = result.landmarkPlot
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    for k in range(2):
        series = chart.GetNthPlotSeriesNode(k)
        assert series.GetTableNode() is result.landmarkTable
        values = slicer.util.arrayFromTableColumn(result.landmarkTable, series.GetYColumnName())
        assert np.all(np.diff(values) >= 0)


def test_landmarks_that_were_deleted_meanwhile_cost_the_table_only(request_, output) -> None:
    with_landmarks(request_)
    request_.movingLandmarks.RemoveNthControlPoint(0)
    result = bring_back(request_, output)
    assert result.landmarkTable is None
    assert result.transform is not None


# --- outputs that exist ---------------------------------------------------------------------------


def test_existing_outputs_are_filled_and_earlier_extras_are_replaced(
    request_, output, scene
) -> None:
    with_landmarks(request_)
    first = bring_back(request_, output)
    count = len(node_ids(scene))
    request_.transform, request_.warpedVolume = first.transform, first.warpedVolume
    second = bring_back(request_, output)
    assert second.transform is first.transform
    assert second.warpedVolume is first.warpedVolume
    assert second.jacobian is not first.jacobian
    assert len(node_ids(scene)) == count
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene.scene)
    folders = [
        hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
        for node in (second.transform, second.jacobian, second.landmarkTable)
    ]
    assert len(set(folders)) == 1


def test_the_next_patient_gets_nodes_of_its_own(request_, output) -> None:
    first = bring_back(request_, output)
    again = Request(request_.fixedVolume, request_.movingVolume)
    again.transform, again.warpedVolume = first.transform, first.warpedVolume
    forgetOutputsOfOthers(again)
    assert again.transform is first.transform  # the same pair: its result is replaced
    other = Request(volume_node(oblique_image(), "Patient 2"), request_.movingVolume)
    other.transform, other.warpedVolume = first.transform, first.warpedVolume
    forgetOutputsOfOthers(other)
    assert (other.transform, other.warpedVolume) == (None, None)
    second = bring_back(other, output)
    assert second.transform.GetName() == "Prior to Patient 2"
    assert first.transform.GetNodeReference("GlideRegWarped") is first.warpedVolume


def test_names_stay_the_same_when_a_run_is_repeated(request_, output) -> None:
    with_landmarks(request_)
    first = bring_back(request_, output)
    names = {node.GetName() for node in first.created}
    request_.transform, request_.warpedVolume = first.transform, first.warpedVolume
    second = bring_back(request_, output)
    ours = [n for n in second.created if not n.IsA("vtkMRMLDisplayNode")]
    assert {node.GetName() for node in ours} <= names
    assert second.landmarkTable.GetName() != second.landmarkPlot.GetName()


# --- failures -------------------------------------------------------------------------------------


def test_a_damaged_output_changes_nothing(request_, output, scene, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(output, broken)
    (broken / "jacobian.mha").write_bytes(b"no image")
    before = node_ids(scene)
    with pytest.raises(RuntimeError):
        bring_back(request_, broken)
    assert node_ids(scene) == before


def test_a_failure_halfway_takes_all_nodes_out_again(
    request_, output, scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_landmarks(request_)
    before = node_ids(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene.scene)
    items = hierarchy.GetNumberOfItems()

    def fail(*_: object) -> None:
        raise RuntimeError("no plot today")

    monkeypatch.setattr(results, "addLandmarkPlot", fail)
    with pytest.raises(RuntimeError, match="no plot today"):
        bring_back(request_, output)
    assert node_ids(scene) == before
    assert hierarchy.GetNumberOfItems() == items


def test_an_input_that_was_removed_gives_a_sentence(request_, output, scene) -> None:
    scene.scene.RemoveNode(request_.movingVolume)
    with pytest.raises(InputError, match="was removed during the run"):
        bring_back(request_, output)
