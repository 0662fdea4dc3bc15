"""Every trap that DESIGN lists for the Slicer side, as a regression test against real MRML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from known_fields import centers, field_image, in_ras, markups_node, some_points
from vtk.util.numpy_support import vtk_to_numpy

from GlideRegScene import transforms
from slicer_harness.scene import SceneHarness, fresh_scene


@pytest.fixture
def node(scene: SceneHarness):
    """A result node as the module makes it, holding a known field."""
    return result_node()


def result_node(fade: bool = True):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Field")
    node.SetAndObserveTransformFromParent(transforms.gridTransform(field_image(fade)))
    node.SetAttribute(transforms.ATTRIBUTE, "{}")
    return node


def by_itk(points: np.ndarray, fade: bool = True) -> np.ndarray:
    transform = sitk.DisplacementFieldTransform(
        sitk.Cast(field_image(fade), sitk.sitkVectorFloat64)
    )
    return apply(transform, points)


def apply(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    return np.array([transform.TransformPoint(p) for p in points.tolist()])


def save(node, path: Path) -> Path:
    storage = node.GetStorageNode()
    if storage is None:
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    return path


def reload(folder: Path) -> SceneHarness:
    """The scene saved as .mrb and loaded into a fresh one."""
    bundle = folder / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(bundle))
    harness = fresh_scene()
    assert harness.scene.ReadFromMRB(str(bundle))
    return harness


# --- 1: signs, axis order, direction, scalars ---------------------------------------------------


def test_an_oblique_field_maps_points_in_slicer_as_in_itk(node) -> None:
    points = some_points()
    found = transforms.fixedToMoving(node, points)
    np.testing.assert_allclose(found, by_itk(points), atol=1e-4)
    assert np.linalg.norm(found - points, axis=1).min() > 0.5  # nothing here is the identity


def test_the_grid_is_oriented_and_its_vectors_are_scalars(node) -> None:
    transform = node.GetTransformFromParent()
    assert transform.GetClassName() == "vtkOrientedGridTransform"
    data = transform.GetDisplacementGrid().GetPointData()
    assert data.GetScalars().GetNumberOfComponents() == 3
    assert data.GetVectors() is None
    assert data.GetScalars().GetDataType() == vtk.VTK_FLOAT


# --- 2: interpolation after loading ---------------------------------------------------------------


def test_a_saved_scene_comes_back_with_the_same_field(node, tmp_path: Path) -> None:
    points = some_points()
    before = transforms.fixedToMoving(node, points)
    harness = reload(tmp_path)
    loaded = slicer.util.getNode("Field")
    grid = loaded.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    assert grid.GetInterpolationMode() == vtk.VTK_GRID_CUBIC  # what Slicer makes of it
    cubic = transforms.fixedToMoving(loaded, points)
    assert np.abs(cubic - before).max() > 1e-3
    assert transforms.restoreLoadedTransforms(harness.scene) == 1
    after = transforms.fixedToMoving(loaded, points)
    np.testing.assert_allclose(after, before, atol=1e-4)
    harness.close()


def test_transforms_of_others_are_left_as_they_are(node, tmp_path: Path) -> None:
    node.RemoveAttribute(transforms.ATTRIBUTE)
    harness = reload(tmp_path)
    assert transforms.restoreLoadedTransforms(harness.scene) == 0
    grid = slicer.util.getNode("Field").GetTransformFromParentAs(
        "vtkOrientedGridTransform", False, True
    )
    assert grid.GetInterpolationMode() == vtk.VTK_GRID_CUBIC
    harness.close()


# --- 3: outside the grid --------------------------------------------------------------------------


def test_with_a_zero_border_slicer_and_itk_agree_outside_the_grid(scene: SceneHarness) -> None:
    image = field_image()
    lattice = centers(image)
    middle = lattice.mean(axis=0)
    outside = middle + (lattice[:: len(lattice) // 40] - middle) * 1.6
    faded, cut = result_node(fade=True), result_node(fade=False)
    np.testing.assert_allclose(transforms.fixedToMoving(faded, outside), by_itk(outside), atol=1e-4)
    gross = transforms.fixedToMoving(cut, outside) - by_itk(outside, fade=False)
    assert np.abs(gross).max() > 1.0  # the trap itself: VTK clamps, ITK gives zero


# --- 4: files -------------------------------------------------------------------------------------


def test_the_h5_file_is_the_same_transform_for_itk(node, tmp_path: Path) -> None:
    transform = sitk.ReadTransform(str(save(node, tmp_path / "field.h5")))
    points = some_points()
    np.testing.assert_allclose(apply(transform, points), by_itk(points), atol=1e-4)


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
def test_the_displacement_image_is_the_same_field_for_itk(node, tmp_path: Path, ending) -> None:
    image = sitk.ReadImage(str(save(node, tmp_path / f"field.{ending}")), sitk.sitkVectorFloat64)
    points = some_points()
    found = apply(sitk.DisplacementFieldTransform(image), points)
    np.testing.assert_allclose(found, by_itk(points), atol=1e-3)


# --- 5: what moves the other way ------------------------------------------------------------------


def test_moving_landmarks_under_the_node_come_to_lie_on_the_fixed_ones(node) -> None:
    fixed = some_points()
    moving = by_itk(fixed)
    markups = markups_node(moving, "Moving landmarks")
    markups.SetAndObserveTransformNodeID(node.GetID())
    world = [markups.GetNthControlPointPositionWorld(k) for k in range(len(moving))]
    np.testing.assert_allclose(in_ras(np.array(world)), fixed, atol=1e-3)
    np.testing.assert_allclose(transforms.movingToFixed(node, moving), fixed, atol=1e-3)


# --- 6: Slicer's own export of a displacement volume ----------------------------------------------


def test_slicers_displacement_volume_is_the_inverse_of_our_field(node, scene) -> None:
    # So it is never used to store a result: it is moving to fixed (ToWorld).
    reference = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Reference")
    slicer.util.updateVolumeFromArray(reference, np.zeros((12, 12, 12), np.float32))
    center = in_ras(some_points().mean(axis=0))
    reference.SetOrigin((center - 5.5).tolist())
    volume = scene.logics["Transforms"].CreateDisplacementVolumeFromTransform(
        node, reference, False
    )
    data = volume.GetImageData().GetPointData().GetScalars()
    values = vtk_to_numpy(data).reshape(12, 12, 12, 3)
    at = in_ras(center - 5.5 + np.array([3.0, 4.0, 5.0]))[None]
    backward = in_ras(transforms.movingToFixed(node, at) - at)[0]
    np.testing.assert_allclose(values[5, 4, 3], backward, atol=0.01)
    forward = in_ras(transforms.fixedToMoving(node, at) - at)[0]
    assert np.linalg.norm(values[5, 4, 3] - forward) > 1.0


# --- 9: the numerical inverse ---------------------------------------------------------------------


def test_the_inverse_is_exact_where_the_default_tolerance_is_not(node) -> None:
    points = some_points(300)
    moved = transforms.fixedToMoving(node, points)
    exact = np.abs(transforms.movingToFixed(node, moved) - points).max()
    node.GetTransformFromParent().SetInverseTolerance(0.0075)
    node.TransformModified()
    default = np.abs(transforms.movingToFixed(node, moved) - points).max()
    assert exact < 5e-4 < default


def test_the_inverse_is_exact_after_loading_too(node, tmp_path: Path) -> None:
    points = some_points()
    moved = transforms.fixedToMoving(node, points)
    harness = reload(tmp_path)
    transforms.restoreLoadedTransforms(harness.scene)
    loaded = slicer.util.getNode("Field")
    assert np.abs(transforms.movingToFixed(loaded, moved) - points).max() < 2e-4
    harness.close()


# --- 11: stale singletons -------------------------------------------------------------------------


def test_every_test_has_a_scene_of_its_own(scene: SceneHarness) -> None:
    first = slicer.mrmlScene
    again = fresh_scene()
    assert slicer.mrmlScene is again.scene is not first
    assert slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode") == []
    again.close()
