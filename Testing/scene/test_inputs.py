"""What the worker reads is what the user sees: world coordinates, and nodes are never changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from known_fields import (
    SIZE,
    field_image,
    in_ras,
    linear_node,
    markups_node,
    oblique_image,
    some_points,
    turn_and_shift,
    volume_node,
)

from GlideRegLib.errors import InputError
from GlideRegLib.landmarks import read_landmarks
from GlideRegScene import inputs
from GlideRegScene.inputs import Request
from slicer_harness.scene import SceneHarness

pytestmark = pytest.mark.usefixtures("scene")


def same_geometry(a: sitk.Image, b: sitk.Image) -> None:
    assert a.GetSize() == b.GetSize()
    np.testing.assert_allclose(a.GetSpacing(), b.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)


def in_lps(matrix: np.ndarray) -> np.ndarray:
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ matrix @ flip


# --- volumes --------------------------------------------------------------------------------------


def test_an_oblique_volume_is_written_voxel_for_voxel() -> None:
    expected = oblique_image()
    image, resampled = inputs.worldImage(volume_node(expected, "V"))
    assert not resampled
    same_geometry(image, expected)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))


def test_integer_voxels_stay_integers() -> None:
    values = np.arange(np.prod(SIZE)).reshape(SIZE[::-1]) % 3000 - 1024
    image = sitk.Cast(oblique_image(values), sitk.sitkInt16)
    found, _ = inputs.worldImage(volume_node(image, "V"))
    assert found.GetPixelID() == sitk.sitkInt16


def test_a_linear_parent_moves_the_grid_and_no_voxel() -> None:
    node = volume_node(oblique_image(), "V")
    inner, outer = linear_node(turn_and_shift()), linear_node(np.diag([1.1, 1.1, 1.1, 1.0]))
    inner.SetAndObserveTransformNodeID(outer.GetID())  # a chain of two
    node.SetAndObserveTransformNodeID(inner.GetID())
    image, resampled = inputs.worldImage(node)
    assert not resampled
    total = in_lps(np.diag([1.1, 1.1, 1.1, 1.0]) @ turn_and_shift())
    for index in ((0, 0, 0), (39, 0, 0), (5, 30, 20)):
        local = np.append(oblique_image().TransformIndexToPhysicalPoint(index), 1.0)
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint(index), (total @ local)[:3], atol=1e-4
        )
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(oblique_image())
    )


def test_a_sheared_volume_is_resampled_onto_a_straight_grid() -> None:
    node = volume_node(oblique_image(), "V")
    shear = np.eye(4)
    shear[0, 2] = 0.2
    parent = linear_node(shear)
    node.SetAndObserveTransformNodeID(parent.GetID())
    image, resampled = inputs.worldImage(node)
    assert resampled
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-9)
    for index in ((20, 18, 15), (10, 12, 9)):
        local = np.append(oblique_image().TransformIndexToPhysicalPoint(index), 1.0)
        world = (in_lps(shear) @ local)[:3].tolist()
        value = image[image.TransformPhysicalPointToIndex(world)]
        assert value == pytest.approx(oblique_image()[index], abs=120)


def test_a_volume_under_a_warp_is_hardened_in_a_copy() -> None:
    from GlideRegScene.transforms import gridTransform

    node = volume_node(oblique_image(), "V")
    before = slicer.mrmlScene.GetNumberOfNodes()
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    warp.SetAndObserveTransformFromParent(gridTransform(field_image()))
    node.SetAndObserveTransformNodeID(warp.GetID())
    image, resampled = inputs.worldImage(node)
    assert resampled
    assert slicer.mrmlScene.GetNumberOfNodes() == before + 1  # the warp; no copy stays
    np.testing.assert_array_equal(
        slicer.util.arrayFromVolume(node), sitk.GetArrayFromImage(oblique_image())
    )
    # ITK's resampling by the same field gives the same picture at the same places.
    field = sitk.DisplacementFieldTransform(sitk.Cast(field_image(), sitk.sitkVectorFloat64))
    expected = sitk.Resample(oblique_image(), image, field, sitk.sitkLinear, 0.0)
    inside = [image.TransformPhysicalPointToIndex(p) for p in some_points().tolist()]
    found = np.array([image[i] for i in inside])
    truth = np.array([expected[i] for i in inside])
    assert np.abs(found - truth).mean() < 15  # values span 1,500; hardening interpolates too


# --- masks ----------------------------------------------------------------------------------------


def half() -> np.ndarray:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[5:20, 8:30, 10:25] = 1
    return mask


def segmentation(volume, *names: str):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for k, name in enumerate(names):
        identifier = node.GetSegmentation().AddEmptySegment(f"id{k}", name)
        array = half() if k == 0 else np.roll(half(), 12, axis=0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, identifier, volume)
    return node


def test_a_segment_is_the_mask_on_the_volumes_voxels() -> None:
    volume = volume_node(oblique_image(), "V")
    node = segmentation(volume, "lung", "heart")
    for segment in ("id0", "lung"):  # by ID and by name
        mask = inputs.maskImage(node, segment, volume)
        same_geometry(mask, oblique_image())
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), half())
    every = sitk.GetArrayFromImage(inputs.maskImage(node, "", volume))
    np.testing.assert_array_equal(every, half() | np.roll(half(), 12, axis=0))


def test_a_segmentation_under_a_transform_is_where_it_is_seen() -> None:
    volume = volume_node(oblique_image(), "V")
    node = segmentation(volume, "lung")
    node.SetAndObserveTransformNodeID(linear_node(turn_and_shift()).GetID())
    mask = inputs.maskImage(node, "lung", volume)
    same_geometry(mask, oblique_image())
    inside = np.argwhere(sitk.GetArrayFromImage(mask))[:, ::-1]
    found = np.mean([mask.TransformIndexToPhysicalPoint(i) for i in inside.tolist()], axis=0)
    local = np.argwhere(half())[:, ::-1]
    center = np.mean(
        [oblique_image().TransformIndexToPhysicalPoint(i) for i in local.tolist()], axis=0
    )
    expected = (in_lps(turn_and_shift()) @ np.append(center, 1.0))[:3]
    # A part may leave the image: only the axes along which it stays inside are compared.
    assert np.linalg.norm(found - expected) < 6.0


def test_a_segmentation_that_moves_with_its_volume_is_voxel_for_voxel() -> None:
    volume = volume_node(oblique_image(), "V")
    node = segmentation(volume, "lung")
    parent = linear_node(turn_and_shift()).GetID()
    node.SetAndObserveTransformNodeID(parent)
    volume.SetAndObserveTransformNodeID(parent)
    mask = inputs.maskImage(node, "lung", volume)
    same_geometry(mask, inputs.worldImage(volume)[0])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), half())


def test_a_label_map_is_a_mask_too() -> None:
    volume = volume_node(oblique_image(), "V")
    labels = volume_node(sitk.Cast(oblique_image(3 * half()), sitk.sitkInt16), "L", labels=True)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(inputs.maskImage(labels, "", volume)), half()
    )


def test_an_unknown_segment_or_an_empty_mask_gives_a_sentence() -> None:
    volume = volume_node(oblique_image(), "V")
    node = segmentation(volume, "lung")
    with pytest.raises(InputError, match="no segment 'liver'"):
        inputs.maskImage(node, "liver", volume)
    node.GetSegmentation().AddEmptySegment("empty", "nothing")
    with pytest.raises(InputError, match="mask is empty"):
        inputs.maskImage(node, "empty", volume)
    node.GetSegmentation().RemoveAllSegments()
    with pytest.raises(InputError, match="no segments"):
        inputs.maskImage(node, "", volume)


def test_a_structure_set_of_surfaces_is_not_changed() -> None:
    volume = volume_node(oblique_image(), "V")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "RTSTRUCT")
    node.GetSegmentation().SetSourceRepresentationName(
        slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
    )
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(*in_ras(some_points().mean(axis=0)))
    sphere.SetRadius(12.0)
    sphere.SetThetaResolution(60)
    sphere.SetPhiResolution(60)
    sphere.Update()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "target", [1, 0, 0])
    labelmap = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    assert not node.GetSegmentation().ContainsRepresentation(labelmap)
    mask = inputs.maskImage(node, "target", volume)
    assert not node.GetSegmentation().ContainsRepresentation(labelmap)
    same_geometry(mask, oblique_image())
    volume_mm3 = sitk.GetArrayFromImage(mask).sum() * np.prod(mask.GetSpacing())
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.05)


def test_making_masks_leaves_no_nodes_behind() -> None:
    volume = volume_node(oblique_image(), "V")
    node = segmentation(volume, "lung")
    before = slicer.mrmlScene.GetNumberOfNodes()
    inputs.maskImage(node, "", volume)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


# --- landmarks and the start ----------------------------------------------------------------------


def test_landmarks_are_world_lps_and_reach_the_worker_as_such(tmp_path: Path) -> None:
    points = some_points(12)
    fixed, moving = markups_node(points, "F"), markups_node(points + 3, "M")
    moving.SetAndObserveTransformNodeID(linear_node(turn_and_shift()).GetID())
    request = Request(
        volume_node(oblique_image(), "A"),
        volume_node(oblique_image(), "B"),
        fixedLandmarks=fixed,
        movingLandmarks=moving,
    )
    collected = inputs.collectInputs(request, tmp_path)
    collected.write()
    job = collected.job
    np.testing.assert_allclose(read_landmarks(job["fixed_landmarks"][0]).points, points, atol=1e-3)
    expected = np.c_[points + 3, np.ones(12)] @ in_lps(turn_and_shift()).T
    np.testing.assert_allclose(
        read_landmarks(job["moving_landmarks"][0]).points, expected[:, :3], atol=1e-3
    )
    assert "fixed_constraints" not in job and "moving_constraints" not in job


def test_landmarks_guide_only_when_that_is_chosen(tmp_path: Path) -> None:
    points = markups_node(some_points(6), "F"), markups_node(some_points(6) + 3, "M")
    request = Request(
        volume_node(oblique_image(), "A"), volume_node(oblique_image(), "B"), {}, *points, True
    )
    assert request.useLandmarks and request.problem() == ""
    job = inputs.collectInputs(request, tmp_path).job
    for role in ("fixed", "moving"):
        assert job[f"{role}_constraints"] == job[f"{role}_landmarks"]
    assert "guide" in problem_of(useLandmarks=True)


def test_rows_with_an_unplaced_point_are_left_out() -> None:
    points = some_points(5)
    fixed, moving = markups_node(points, "F"), markups_node(points, "M")
    fixed.SetNthControlPointLabel(4, "apex")
    moving.SetNthControlPointPositionMissing(1)
    pairs = inputs.landmarkPairs(fixed, moving)
    np.testing.assert_allclose(pairs.fixed, points[[0, 2, 3, 4]], atol=1e-9)
    assert pairs.labels[-1] == "apex"


def test_landmark_lists_that_do_not_correspond_give_a_sentence() -> None:
    with pytest.raises(InputError, match="5 fixed and 4 moving"):
        inputs.landmarkPairs(markups_node(some_points(5), "F"), markups_node(some_points(4), "M"))
    with pytest.raises(InputError, match="no pair of placed points"):
        inputs.landmarkPairs(markups_node(some_points(0), "F"), markups_node(some_points(0), "M"))


def test_the_start_is_the_inverse_of_what_moves_the_volume() -> None:
    node = linear_node(turn_and_shift())
    start = inputs.startTransform(node)
    points = some_points(5)
    back = np.array([start.TransformPoint(p) for p in points.tolist()])
    again = np.c_[in_ras(back), np.ones(5)] @ turn_and_shift().T
    np.testing.assert_allclose(in_ras(again[:, :3]), points, atol=1e-6)


# --- the whole request ----------------------------------------------------------------------------


def test_file_names_are_neutral_and_the_nodes_are_as_before(
    scene: SceneHarness, tmp_path: Path
) -> None:
    nodes = [volume_node(oblique_image(), name) for name in ("Doe^Jane 1", "Doe^Jane 2")]
    times = [node.GetMTime() for node in nodes]
    count = scene.scene.GetNumberOfNodes()
    written = inputs.collectInputs(Request(*nodes, settings={"seed": 3}), tmp_path)
    written.write()
    assert [node.GetMTime() for node in nodes] == times
    assert scene.scene.GetNumberOfNodes() == count
    assert "Doe" not in json.dumps(written.job)
    assert not [p for p in tmp_path.iterdir() if "Doe" in p.name]
    assert nodes[0].GetStorageNode() is None  # a storage node would offer our file for saving


def problem_of(**changes) -> str:
    a, b = volume_node(oblique_image(), "A"), volume_node(oblique_image(), "B")
    return Request(**{"fixedVolume": a, "movingVolume": b, **changes}).problem()


def test_a_complete_request_has_no_problem() -> None:
    assert problem_of() == ""


def test_what_is_missing_or_wrong_is_said_in_one_sentence() -> None:
    volume = volume_node(oblique_image(), "V")
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    points = markups_node(some_points(3), "P")
    assert problem_of(fixedVolume=None) == "Choose a fixed volume."
    assert problem_of(movingVolume=None) == "Choose a moving volume."
    assert "are the same" in problem_of(fixedVolume=volume, movingVolume=volume)
    assert "moving volume is empty" in problem_of(movingVolume=empty)
    assert problem_of(fixedLandmarks=points) == "Choose the moving landmarks too, or none."
    empty.SetAndObserveImageData(vtk.vtkImageData())
    assert "moving volume is empty" in problem_of(movingVolume=empty)
    assert "overwrite an input" in problem_of(fixedVolume=volume, warpedVolume=volume)


def test_transforms_that_cannot_be_used_are_said() -> None:
    from GlideRegScene.transforms import gridTransform

    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    warp.SetAndObserveTransformFromParent(gridTransform(field_image()))
    assert "not linear" in problem_of(initialTransform=warp)
    linear = linear_node(turn_and_shift())
    moving = volume_node(oblique_image(), "M")
    moving.SetAndObserveTransformNodeID(linear.GetID())
    assert "already under" in problem_of(movingVolume=moving, initialTransform=linear)
    assert "under the output transform" in problem_of(movingVolume=moving, transform=linear)
