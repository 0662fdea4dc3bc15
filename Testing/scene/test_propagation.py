"""Nodes of one image become new nodes on the other one: with Slicer's own MRML."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

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
from GlideRegLib.propagation.job import PropagateJob, run_propagate_job
from GlideRegScene.propagation import segmentations
from GlideRegScene.propagation.candidates import candidates, isSuggested, kindOf
from GlideRegScene.propagation.request import PropagateRequest, collectPropagation
from GlideRegScene.propagation.results import ATTRIBUTE as ATTRIBUTE_OF_CARRIED
from GlideRegScene.propagation.results import (
    SOURCE_ROLE,
    PropagatedNodes,
    importPropagation,
    readPropagation,
)
from GlideRegScene.quality import field
from GlideRegScene.transforms import ATTRIBUTE, gridTransform
from slicer_harness.scene import SceneHarness

pytestmark = pytest.mark.usefixtures("scene")
DIRECTIONS = pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])


def carry(request: PropagateRequest) -> PropagatedNodes:
    """What a run does, without a process of its own."""
    problem = request.problem()
    if problem:
        raise InputError(problem)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = collectPropagation(request, folder)
        inputs.write()
        text = json.dumps({**inputs.job, "output": str(folder / "output")})
        run_propagate_job(PropagateJob.from_json(text))
        return importPropagation(request, readPropagation(folder / "output"), inputs)


def propagate(nodes, transform, reference, back=False, smooth=False, sourceVolume=None) -> list:
    volumes = (sourceVolume, reference) if back else (reference, sourceVolume)
    return carry(PropagateRequest(nodes, transform, *volumes, back=back, smooth=smooth)).nodes


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
    with pytest.raises(InputError, match="is a plane, which does not stay one"):
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


def shared_segmentation(source: np.ndarray) -> object:
    """Two segments in one layer, with tags and terminology, drawn on no volume."""
    image = ball(source[0], 8) + 2 * ball(source[1], 9) * (1 - ball(source[0], 8))
    labels = volume_node(sitk.Cast(image, sitk.sitkInt16), "L", labels=True)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, segmentation)
    slicer.mrmlScene.RemoveNode(labels)
    segment = segmentation.GetSegmentation().GetNthSegment(1)
    segment.SetName("Heart")
    segment.SetTag("DicomRtImport.RoiType", "ORGAN")
    segment.SetTag(segment.GetTerminologyEntryTagName(), "CT~Organ~Heart~~~~")
    return segmentation


def test_segments_of_one_layer_stay_together_with_tags_looks_and_surfaces(
    node, reference, tmp_path
) -> None:
    source, target = partners(False, tmp_path)
    middle = np.argsort(np.linalg.norm(source - source.mean(axis=0), axis=1))[:2]
    segmentation = shared_segmentation(source[middle])
    old = segmentation.GetSegmentation()
    assert old.GetNumberOfLayers() == 1
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.CreateDefaultDisplayNodes()
    display = segmentation.GetDisplayNode()
    display.SetSegmentOpacity2DFill(old.GetNthSegmentID(1), 0.25)
    display.SetSegmentVisibility(old.GetNthSegmentID(0), False)
    (new,) = propagate([segmentation], node, reference)
    found = new.GetSegmentation()
    assert (found.GetNumberOfSegments(), found.GetNumberOfLayers()) == (2, 1)
    assert list(found.GetSegmentIDs()) == list(old.GetSegmentIDs())
    heart = found.GetNthSegment(1)
    tag = vtk.reference("")
    assert heart.GetTag("DicomRtImport.RoiType", tag) and str(tag) == "ORGAN"
    assert heart.GetTag(heart.GetTerminologyEntryTagName(), tag) and "Heart" in str(tag)
    looks = new.GetDisplayNode()
    assert looks.GetSegmentOpacity2DFill(found.GetNthSegmentID(1)) == pytest.approx(0.25)
    assert not looks.GetSegmentVisibility(found.GetNthSegmentID(0))
    surface = vtk.vtkPolyData()
    assert new.GetClosedSurfaceRepresentation(found.GetNthSegmentID(1), surface)
    middle_of_surface = vtk_to_numpy(surface.GetPoints().GetData()).mean(axis=0)
    assert np.linalg.norm(middle_of_surface - target[middle[1]]) < 2
    for number, k in enumerate(middle):
        assert np.linalg.norm(center_of(new, number, reference) - target[k]) < 2
    # The new one is a file like any other; the old one is as it was.
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap
    before = voxels(new, found.GetNthSegmentID(1), reference)
    assert new.GetDisplayNode().GetVisibility() and before.any()
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "new.seg.nrrd"))
    assert storage.WriteData(new)
    again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "again")
    assert storage.ReadData(again)
    after = voxels(again, again.GetSegmentation().GetNthSegmentID(1), reference)
    np.testing.assert_array_equal(before, after)
    assert old.GetNumberOfLayers() == 1


def test_surfaces_that_would_hold_up_the_application_are_left_to_the_user(
    node, reference, tmp_path, monkeypatch
) -> None:
    source, _ = partners(False, tmp_path)
    middle = np.argsort(np.linalg.norm(source - source.mean(axis=0), axis=1))[:2]
    segmentation = shared_segmentation(source[middle])
    segmentation.CreateClosedSurfaceRepresentation()
    monkeypatch.setattr(segmentations, "_MOST_FOR_SURFACES", 100)
    result = carry(PropagateRequest([segmentation], node, reference))
    assert not result.nodes[0].GetSegmentation().ContainsRepresentation("Closed surface")
    assert result.notes == [
        "'Organs' is large: press Show 3D in the module Segmentations to see it in 3-D."
    ]


def test_a_segment_that_leaves_the_image_is_empty_and_said(node, reference, tmp_path) -> None:
    source, _ = partners(False, tmp_path)
    middle = int(np.argmin(np.linalg.norm(source - source.mean(axis=0), axis=1)))
    segmentation = segmentation_of(ball(source[middle], 8))
    segmentation.GetSegmentation().AddEmptySegment("empty")
    far = segmentation_of(ball(source[middle], 8))
    far.SetName("Far")
    far.SetAndObserveTransformNodeID(shifted(900.0).GetID())
    result = carry(PropagateRequest([segmentation, far], node, reference))
    assert [n.GetSegmentation().GetNumberOfSegments() for n in result.nodes] == [2, 1]
    assert any("'Structure 0' of 'Far' left no voxel in 'Reference'" in t for t in result.notes)


def shifted(millimeters: float) -> object:
    matrix = np.eye(4)
    matrix[0, 3] = millimeters
    return linear_node(matrix, "Shift")


def test_points_that_belong_elsewhere_are_said(node, reference) -> None:
    points = markups_of("vtkMRMLMarkupsFiducialNode", np.array([[900.0, 0, 0]]))
    result = carry(PropagateRequest([points], node, reference, volume_node(oblique_image(), "Old")))
    assert result.notes == [
        "1 of 1 points of 'M' lie outside 'Old'; check the direction, and that they belong to it."
    ]


def test_what_no_inverse_reaches_is_said(node, reference) -> None:
    """A field that jumps from 20 mm to nothing in the middle of the image."""
    middle = some_points().mean(axis=0)
    image = sitk.GetImageFromArray(np.full((10, 10, 10, 3), (20.0, 0, 0), np.float32), True)
    image.SetSpacing((4.0, 4.0, 4.0))
    image.SetOrigin((middle - 18).tolist())
    node.SetAndObserveTransformFromParent(gridTransform(image))
    places = middle + np.array([[-12.0, 0, 0], [-6.0, 0, 0], [12.0, 0, 0]])
    points = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(places))
    result = carry(PropagateRequest([points], node, reference, volume_node(oblique_image(), "Old")))
    assert len(result.notes) == 1 and "points of 'M' could not be placed exactly" in result.notes[0]
    marked = json.loads(result.nodes[0].GetAttribute(ATTRIBUTE_OF_CARRIED))
    assert f"{marked['inverse_error_mm']['max']:.1f} mm at most" in result.notes[0]
    block = volume_node(oblique_image(), "Block")
    old = volume_node(oblique_image(), "Old 2")
    back = carry(PropagateRequest([block], node, reference, old, back=True))
    assert "The inverse that voxels go through is off" in back.notes[-1]


def test_a_transform_that_was_sampled_coarsely_is_said(reference, monkeypatch) -> None:
    """Cubic: it is sampled at the voxels, and here only at every second one."""
    monkeypatch.setattr(field, "_MOST_SAMPLES", 10_000)
    theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Cubic")
    grid = gridTransform(field_image())
    grid.SetInterpolationModeToCubic()
    theirs.SetAndObserveTransformFromParent(grid)
    points = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(3)))
    result = carry(PropagateRequest([points], theirs, reference))
    assert result.notes == ["The transform was sampled at every second voxel."]


def test_volumes_keep_colors_window_and_unit(node, reference) -> None:
    dose = volume_node(oblique_image() * 0.01 + 20, "Dose")
    dose.CreateDefaultDisplayNodes()
    colors = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "Isodose")
    dose.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
    dose.GetDisplayNode().SetAutoWindowLevel(False)
    dose.GetDisplayNode().SetWindowLevelMinMax(3, 33)
    gray = slicer.vtkCodedEntry()
    gray.SetValueSchemeMeaning("Gy", "UCUM", "gray")
    dose.SetVoxelValueUnits(gray)
    request = PropagateRequest([dose], node, reference, doses=(dose,))
    (new,) = carry(request).nodes
    assert new.GetDisplayNode().GetColorNode() is colors
    assert new.GetDisplayNode().GetWindowLevelMin() == 3
    assert new.GetVoxelValueUnits().GetCodeValue() == "Gy"
    assert slicer.util.arrayFromVolume(new).min() == 0  # outside; an image would have its minimum
    assert new.GetAttribute("DicomRtImport.DoseVolume") is None


def test_new_nodes_lie_in_the_study_of_the_target_and_go_again(node, reference) -> None:
    scene = slicer.mrmlScene
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Planning CT")
    hierarchy.CreateItem(study, reference)
    points = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(4)))
    points.CreateDefaultDisplayNodes()
    selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    before = scene.GetNumberOfNodes()
    active = selection.GetActivePlaceNodeID() if selection else None
    result = carry(PropagateRequest([points], node, reference))
    (new,) = result.nodes
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(new)) == study
    assert new.GetNodeReference(SOURCE_ROLE) is points
    said = json.loads(new.GetAttribute(ATTRIBUTE_OF_CARRIED))
    assert said["direction"] == "moving to fixed" and "Reference" not in str(said)
    assert not selection or selection.GetActivePlaceNodeID() == active
    result.undo()
    assert scene.GetNumberOfNodes() == before
    result.undo()  # again is no harm


def test_what_is_missing_is_a_sentence(node, reference) -> None:
    points = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(4)))
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
    under = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(4)))
    under.SetName("Under")
    under.SetAndObserveTransformNodeID(node.GetID())
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode", "Camera")
    said = [
        (PropagateRequest([points], None, reference), "choose a transform"),
        (PropagateRequest([points], node), "Choose the fixed volume"),
        (PropagateRequest([points], node, reference, back=True), "Choose the moving volume"),
        (PropagateRequest([], node, reference), "Tick what"),
        (PropagateRequest([empty], node, reference), "'Empty' has no segments"),
        (PropagateRequest([under], node, reference), "lies on the other image already"),
        (PropagateRequest([camera], node, reference), "'Camera' is a Camera, which cannot"),
    ]
    for request, words in said:
        assert words in request.problem(), request.problem()
    assert PropagateRequest([points], node, reference).problem() == ""


def test_an_input_that_is_removed_during_the_run_leaves_nothing(node, reference, tmp_path) -> None:
    points = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(4)))
    request = PropagateRequest([points], node, reference)
    inputs = collectPropagation(request, tmp_path)
    inputs.write()
    text = json.dumps({**inputs.job, "output": str(tmp_path / "output")})
    run_propagate_job(PropagateJob.from_json(text))
    slicer.mrmlScene.RemoveNode(points)
    count = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(InputError, match="removed during the run"):
        importPropagation(request, readPropagation(tmp_path / "output"), inputs)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_what_belongs_to_the_source_is_suggested(node, reference) -> None:
    scene = slicer.mrmlScene
    moving = volume_node(oblique_image(), "Moving")
    drawn, other = (
        scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in ("Drawn", "Other")
    )
    for segmentation, volume in ((drawn, moving), (other, reference)):
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentation.GetSegmentation().AddEmptySegment("S")
    points = markups_of("vtkMRMLMarkupsFiducialNode", in_ras(some_points(2)))
    placeless = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "None placed")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Old CT")
    hierarchy.CreateItem(study, moving)
    hierarchy.CreateItem(study, points)
    pet = volume_node(oblique_image(), "PET")
    request = PropagateRequest([], node, reference, moving)
    found = candidates(scene, request)
    assert set(found) == {drawn, other, points, pet}
    assert placeless not in found
    assert [n for n in found if isSuggested(n, request)] == [drawn, points]
    back = PropagateRequest([], node, reference, moving, back=True)
    assert [n for n in found if isSuggested(n, back)] == [other]
    assert [kindOf(n) for n in (drawn, points, pet)] == ["segmentation", "markups", "image"]
    assert kindOf(pet, (pet,)) == "dose"
