"""Nodes of one image become new nodes on the other one: with Slicer's own MRML."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from known_fields import (
    field_image,
    in_ras,
    linear_node,
    oblique_image,
    some_points,
    turn_and_shift,
    volume_node,
)
from vtk.util.numpy_support import vtk_to_numpy

from GlideRegLib.errors import InputError
from GlideRegLib.field import read_transform, transform_points
from GlideRegScene.propagation import propagate
from GlideRegScene.transforms import ATTRIBUTE, gridTransform
from slicer_harness.scene import SceneHarness

pytestmark = pytest.mark.usefixtures("scene")
DIRECTIONS = pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])


@pytest.fixture
def node(tmp_path) -> object:
    """A result node with the known field, fixed to moving, as registrations make it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    node.SetAndObserveTransformFromParent(gridTransform(field_image()))
    node.SetAttribute(ATTRIBUTE, "1")
    return node


@pytest.fixture
def reference(node) -> object:
    return volume_node(oblique_image(), "Reference")


def partners(back: bool, tmp_path) -> tuple[np.ndarray, np.ndarray]:
    """Source and target points (N, 3) in RAS that belong together, by SimpleITK alone."""
    sitk.WriteImage(field_image(), str(tmp_path / "f.nrrd"))
    fixed = some_points(30)
    moving = transform_points(read_transform(tmp_path / "f.nrrd"), fixed)
    pair = (fixed, moving) if back else (moving, fixed)
    return in_ras(pair[0]), in_ras(pair[1])


def positions(markups) -> np.ndarray:
    count = markups.GetNumberOfControlPoints()
    return np.array([markups.GetNthControlPointPositionWorld(k) for k in range(count)])


def markups_of(class_name: str, points: np.ndarray) -> object:
    markups = slicer.mrmlScene.AddNewNodeByClass(class_name, "M")
    for k, point in enumerate(points):
        markups.AddControlPoint(vtk.vtkVector3d(*point), f"P{k}")
    return markups


@DIRECTIONS
@pytest.mark.parametrize(
    "class_name", ["vtkMRMLMarkupsFiducialNode", "vtkMRMLMarkupsClosedCurveNode"]
)
def test_control_points_keep_order_labels_and_color(
    node, reference, tmp_path, class_name: str, back: bool
) -> None:
    source, target = partners(back, tmp_path)
    markups = markups_of(class_name, source)
    markups.CreateDefaultDisplayNodes()
    markups.GetDisplayNode().SetSelectedColor(0.1, 0.9, 0.2)
    (new,) = propagate([markups], node, reference, back)
    np.testing.assert_allclose(positions(new), target, atol=0.02)
    np.testing.assert_allclose(positions(markups), source, atol=1e-9)
    assert [new.GetNthControlPointLabel(k) for k in range(3)] == ["P0", "P1", "P2"]
    assert new.GetClassName() == class_name and new.GetParentTransformNode() is None
    assert new.GetDisplayNode().GetSelectedColor() == pytest.approx((0.1, 0.9, 0.2))
    assert new.GetName() == "M on Reference"


def test_nodes_under_a_transform_count_as_they_are_seen(node, reference, tmp_path) -> None:
    source, target = partners(False, tmp_path)
    parent = linear_node(np.array([[0, -1, 0, 5], [1, 0, 0, -8], [0, 0, 1, 3], [0, 0, 0, 1.0]]))
    markups = markups_of("vtkMRMLMarkupsFiducialNode", np.zeros((len(source), 3)))
    markups.SetAndObserveTransformNodeID(parent.GetID())
    for k, point in enumerate(source):
        markups.SetNthControlPointPositionWorld(k, *point)
    (new,) = propagate([markups], node, reference)
    np.testing.assert_allclose(positions(new), target, atol=0.02)


@DIRECTIONS
def test_models_move_with_their_points(node, reference, tmp_path, back: bool) -> None:
    source, target = partners(back, tmp_path)
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(*source[0])
    sphere.SetRadius(6)
    sphere.Update()
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "Ball")
    model.SetAndObservePolyData(sphere.GetOutput())
    (new,) = propagate([model], node, reference, back)
    points = vtk_to_numpy(new.GetPolyData().GetPoints().GetData())
    assert np.linalg.norm(points.mean(axis=0) - target[0]) < 0.5
    assert new.GetPolyData().GetNumberOfPolys() == sphere.GetOutput().GetNumberOfPolys()
    assert model.GetPolyData() is not new.GetPolyData()


def ball(center: np.ndarray, radius: float) -> sitk.Image:
    """1 in a ball around an RAS point, on the oblique lattice."""
    image = oblique_image()
    k, j, i = np.indices(image.GetSize()[::-1])
    index = np.stack((i, j, k), axis=-1).reshape(-1, 3) * np.asarray(image.GetSpacing())
    points = index @ np.asarray(image.GetDirection()).reshape(3, 3).T + image.GetOrigin()
    inside = np.linalg.norm(in_ras(points) - center, axis=1) < radius
    filled = sitk.GetImageFromArray(inside.reshape(i.shape).astype(np.uint8))
    filled.CopyInformation(image)
    return filled


def segmentation_of(*images: sitk.Image) -> object:
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    for number, image in enumerate(images):
        labels = volume_node(image, "L", labels=True)
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(
            labels, segmentation
        )
        segment = segmentation.GetSegmentation().GetNthSegment(number)
        segment.SetName(f"Structure {number}")
        segment.SetColor(0.2 * number, 0.5, 0.7)
        slicer.mrmlScene.RemoveNode(labels)
    return segmentation


def center_of(segmentation, number: int, reference) -> np.ndarray:
    from GlideRegScene.inputs import segmentImage

    identifier = segmentation.GetSegmentation().GetNthSegmentID(number)
    image = segmentImage(segmentation, [identifier], reference)
    index = np.argwhere(sitk.GetArrayFromImage(image) > 0)[:, ::-1].mean(axis=0)
    return in_ras(np.array([image.TransformContinuousIndexToPhysicalPoint(index.tolist())]))[0]


@DIRECTIONS
@pytest.mark.parametrize("smooth", [False, True])
def test_overlapping_segments_keep_names_and_colors(
    node, reference, tmp_path, back: bool, smooth: bool
) -> None:
    source, target = partners(back, tmp_path)
    middle = np.argsort(np.linalg.norm(source - source.mean(axis=0), axis=1))[:2]
    images = [ball(source[k], radius) for k, radius in zip(middle, (14, 18), strict=True)]
    segmentation = segmentation_of(*images)
    (new,) = propagate([segmentation], node, reference, back, smooth)
    found = new.GetSegmentation()
    assert found.GetNumberOfSegments() == 2
    for number, k in enumerate(middle):
        assert found.GetNthSegment(number).GetName() == f"Structure {number}"
        assert found.GetNthSegment(number).GetColor()[0] == pytest.approx(0.2 * number)
        assert np.linalg.norm(center_of(new, number, reference) - target[k]) < 1.5
    assert not slicer.mrmlScene.GetFirstNodeByName("glidereg-segments")


@DIRECTIONS
def test_dose_is_linear_and_zero_outside(node, reference, tmp_path, back: bool) -> None:
    source, target = partners(back, tmp_path)
    image = oblique_image() * 0.01 + 20
    dose = volume_node(image, "Dose")
    dose.SetAttribute("DicomRtImport.DoseVolume", "1")
    (new,) = propagate([dose], node, reference, back)
    array = slicer.util.arrayFromVolume(new)
    assert array.shape == slicer.util.arrayFromVolume(reference).shape
    assert array.dtype == np.float32 and new.GetAttribute("DicomRtImport.DoseVolume") == "1"
    from GlideRegScene.inputs import worldImage

    carried, flip = worldImage(new)[0], np.array([-1, -1, 1])
    checked = 0
    for p, q in zip(source * flip, target * flip, strict=True):
        try:
            expected = image.EvaluateAtPhysicalPoint(p.tolist())
            found = carried.EvaluateAtPhysicalPoint(q.tolist())
        except RuntimeError:  # outside
            continue
        checked += 1
        assert found == pytest.approx(expected, abs=0.4)
    assert checked > 15


def test_what_cannot_be_carried_leaves_the_scene_as_it_was(
    node, reference, tmp_path, scene: SceneHarness
) -> None:
    source, _ = partners(False, tmp_path)
    markups = markups_of("vtkMRMLMarkupsFiducialNode", source)
    plane = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsPlaneNode", "Plane")
    count = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError, match="plane does not stay a plane"):
        propagate([markups, plane], node, reference)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


@DIRECTIONS
def test_a_roi_holds_what_it_held(node, reference, tmp_path, back: bool) -> None:
    source, target = partners(back, tmp_path)
    middle = source.mean(axis=0)
    inner = np.argsort(np.linalg.norm(source - middle, axis=1))[:8]
    reach = np.abs(source[inner] - middle).max(axis=0)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "ROI")
    roi.SetCenterWorld(*middle)
    roi.SetSize(*(2 * reach + 6))
    (new,) = propagate([roi], node, reference, back)
    matrix = slicer.util.arrayFromVTKMatrix(new.GetObjectToWorldMatrix())
    local = (target[inner] - matrix[:3, 3]) @ matrix[:3, :3]
    assert np.all(np.abs(local) <= np.asarray(new.GetSize()) / 2)
    assert np.prod(new.GetSize()) < 2 * np.prod(roi.GetSize())
    assert np.allclose(roi.GetCenterWorld(), middle)


def test_a_linear_transform_is_exact_both_ways(reference) -> None:
    """A rigid node that puts the moving scan onto the fixed one."""
    matrix = turn_and_shift()
    parent = linear_node(matrix)
    markups = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(5)))
    (new,) = propagate([markups], parent, reference)
    expected = positions(markups) @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(positions(new), expected, atol=1e-6)
    (again,) = propagate([new], parent, reference, back=True)
    np.testing.assert_allclose(positions(again), positions(markups), atol=1e-6)


def test_a_field_of_other_software_needs_the_fixed_volume_for_the_way_back(
    node, reference, tmp_path
) -> None:
    node.RemoveAttribute(ATTRIBUTE)
    source, target = partners(True, tmp_path)
    markups = markups_of("vtkMRMLMarkupsFiducialNode", source)
    with pytest.raises(InputError, match="Choose the fixed volume too"):
        propagate([markups], node, reference, back=True)
    (new,) = propagate([markups], node, reference, back=True, sourceVolume=reference)
    # Sampled every 4 mm along other axes than the field's own.
    np.testing.assert_allclose(positions(new), target, atol=0.15)


def test_slicer_reads_the_segmentation_file_that_the_command_writes(tmp_path) -> None:
    """Two overlapping segments in two layers, there and back through Slicer's storage node."""
    from GlideRegLib.propagation.volumes import layers_to_image, read_layers
    from GlideRegLib.volume import Volume

    middle = in_ras(some_points()).mean(axis=0)
    layers = [Volume.from_sitk(ball(middle + 8 * k, 12.0)) for k in (0, 1)]
    about = {"Segmentation_MasterRepresentation": "Binary labelmap"}
    for k, name in enumerate(("Tumor", "Lung")):
        fields = {"ID": f"S{k}", "Name": name, "Layer": str(k), "LabelValue": "1"}
        about.update({f"Segment{k}_{key}": value for key, value in fields.items()})
    path = tmp_path / "ours.seg.nrrd"
    sitk.WriteImage(layers_to_image(layers, about), str(path), True)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(segmentation)
    found = segmentation.GetSegmentation()
    assert [found.GetNthSegment(k).GetName() for k in (0, 1)] == ["Tumor", "Lung"]
    storage.SetFileName(str(tmp_path / "slicers.seg.nrrd"))
    assert storage.WriteData(segmentation)
    again, names = read_layers(tmp_path / "slicers.seg.nrrd")
    assert [int(v.array.sum()) for v in again] == [int(v.array.sum()) for v in layers]
    assert names["Segment1_Name"] == "Lung"
