"""Structures, markups, models and volumes of one image as new nodes on the other one.

The numbers are the library's (``GlideRegLib.propagation``), so that the scene and the command line
agree; here nodes become world LPS mm and come back. Nodes that are given are never changed.
"""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .inputs import imageOf, startTransform, worldImage
from .nodes import CreatedNodes, onlyTemporarily
from .transforms import displacementImage, isOurs, rasMatrix, sampledDisplacements

#: What SlicerRT marks dose volumes with.
_DOSE_ATTRIBUTE = "DicomRtImport.DoseVolume"
#: Empty voxels around a segment: the distance to its surface needs them.
_MARGIN = 3


def propagate(
    nodes,
    transformNode,
    referenceVolume,
    back=False,
    smooth=False,
    doses=(),
    sourceVolume=None,
) -> list:
    """Carries nodes of the moving image to the fixed one through a registration's transform node
    (set from parent, fixed to moving), with ``back`` from the fixed image to the moving one.

    ``referenceVolume`` is the image to which they go; segmentations and volumes get its voxels.
    ``smooth``: segments without steps. ``doses``: volumes among the nodes that are dose, beside
    those that SlicerRT marks. ``sourceVolume``, the image that the nodes belong to, is needed with
    ``back`` for nonlinear transforms of other software. Returns a new node for each one, all or
    none; raises the library's InputError for what cannot be carried (planes, empty nodes).
    """
    carrier = _carrier(transformNode, referenceVolume, back, sourceVolume)
    with CreatedNodes(referenceVolume.GetScene()) as created:
        found = []
        for node in nodes:
            name = f"{node.GetName()} on {referenceVolume.GetName()}"
            new = created.add(node.GetClassName(), name, unique=True)
            if isinstance(node, slicer.vtkMRMLSegmentationNode):
                _carrySegmentation(node, new, carrier, referenceVolume, smooth)
            elif isinstance(node, slicer.vtkMRMLMarkupsNode):
                _carryMarkups(node, new, carrier)
            elif isinstance(node, slicer.vtkMRMLModelNode):
                _carryModel(node, new, carrier)
            elif isinstance(node, slicer.vtkMRMLScalarVolumeNode):
                _carryVolume(node, new, carrier, node in doses, smooth)
            else:
                raise _refusal(f"A {node.GetNodeTagName()} node cannot be carried.")
            _copyLooks(node, new)
            found.append(new)
        return found


def _refusal(sentence: str) -> Exception:
    from GlideRegLib.errors import InputError

    return InputError(sentence)


def _carrier(transformNode, referenceVolume, back, sourceVolume):
    """The library's carrier between the worlds of both images."""
    from GlideRegLib.field import DisplacementField
    from GlideRegLib.geometry import Grid
    from GlideRegLib.propagation.carrier import Carrier

    target = Grid.from_sitk(worldImage(referenceVolume)[0])
    if transformNode.IsTransformToWorldLinear():
        return Carrier(startTransform(transformNode), target, target, back)
    if isOurs(transformNode):
        field = displacementImage(transformNode)
    else:
        fixed = sourceVolume if back else referenceVolume
        if fixed is None:
            raise _refusal("Choose the fixed volume too: this transform was not made by GlideReg.")
        field = sampledDisplacements(transformNode, fixed)
    lattice = Grid.from_sitk(field)
    grids = (lattice, target) if back else (target, lattice)
    return Carrier(DisplacementField.from_sitk(field).to_sitk_transform(), *grids, back)


# --- kinds ----------------------------------------------------------------------------------------


def _carryVolume(node, new, carrier, dose: bool, smooth: bool) -> None:
    from GlideRegLib.propagation.volumes import carry_dose, carry_image, carry_labels
    from GlideRegLib.volume import Volume

    volume = Volume.from_sitk(worldImage(node)[0])
    if isinstance(node, slicer.vtkMRMLLabelMapVolumeNode):
        carried = carry_labels(volume, carrier, smooth)
    elif dose or node.GetAttribute(_DOSE_ATTRIBUTE):
        carried = carry_dose(volume, carrier)
        new.SetAttribute(_DOSE_ATTRIBUTE, node.GetAttribute(_DOSE_ATTRIBUTE))
    else:
        carried = carry_image(volume, carrier)
    slicer.util.updateVolumeFromArray(new, carried.array)
    new.SetIJKToRASMatrix(rasMatrix(carried.to_sitk()))
    units = node.GetVoxelValueUnits()
    if units is not None:
        new.SetVoxelValueUnits(units)


def _carrySegmentation(node, new, carrier, referenceVolume, smooth: bool) -> None:
    """Each segment by itself: they may overlap, and each keeps its name, color and tags."""
    from GlideRegLib.propagation.volumes import carry_labels
    from GlideRegLib.volume import Volume

    source, target = node.GetSegmentation(), new.GetSegmentation()
    if source.GetNumberOfSegments() == 0:
        raise _refusal("The segmentation has no segments.")
    new.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolume)
    for identifier, image in _segmentImages(node).items():
        segment = slicer.vtkSegment()
        segment.DeepCopyMetadata(source.GetSegment(identifier))
        target.AddSegment(segment, identifier)
        mask = Volume.from_sitk(image)
        if not mask.array.any():
            continue
        carried = carry_labels(mask, carrier, smooth)
        if carried.array.any():
            slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
                _orientedImage(carried), new, identifier
            )


def _segmentImages(node) -> dict:
    """Every segment as 1 in 0 in world LPS mm, on its own voxels, by its ID."""
    import SimpleITK as sitk

    scene, images = node.GetScene(), {}
    with onlyTemporarily(scene):
        copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "glidereg-segments")
        copy.GetSegmentation().DeepCopy(node.GetSegmentation())
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        if not copy.CreateBinaryLabelmapRepresentation():
            raise _refusal("The segmentation cannot be turned into voxels.")
        copy.HardenTransform()
        for identifier in copy.GetSegmentation().GetSegmentIDs():
            oriented = slicer.vtkOrientedImageData()
            copy.GetBinaryLabelmapRepresentation(identifier, oriented)
            image = _imageOfOriented(oriented)
            image = sitk.ConstantPad(image, [_MARGIN] * 3, [_MARGIN] * 3, 0)
            images[identifier] = image
    return images


def _imageOfOriented(oriented):
    """Voxels of a binary label map as an image in LPS mm; a single 0 where there are none."""
    import SimpleITK as sitk

    size = oriented.GetDimensions()
    if min(size) == 0:
        return sitk.Image(1, 1, 1, sitk.sitkUInt8)
    matrix = vtk.vtkMatrix4x4()
    oriented.GetImageToWorldMatrix(matrix)
    matrix = slicer.util.arrayFromVTKMatrix(matrix)
    # The first stored voxel need not be the voxel 0, 0, 0.
    matrix[:3, 3] += matrix[:3, :3] @ np.asarray(oriented.GetExtent()[::2], float)
    voxels = vtk_to_numpy(oriented.GetPointData().GetScalars()).reshape(size[::-1])
    return imageOf((voxels > 0).astype(np.uint8), matrix)


def _orientedImage(volume):
    """A label map of the library as Slicer's oriented image data."""
    oriented = slicer.vtkOrientedImageData()
    oriented.SetDimensions(volume.grid.size)
    values = numpy_to_vtk(np.ascontiguousarray(volume.array, np.uint8).ravel(), deep=True)
    oriented.GetPointData().SetScalars(values)
    oriented.SetImageToWorldMatrix(rasMatrix(volume.to_sitk()))
    return oriented


def _carryModel(node, new, carrier) -> None:
    """The points move; normals are computed again from the faces."""
    if node.GetMesh() is None or node.GetMesh().GetNumberOfPoints() == 0:
        raise _refusal("The model is empty.")
    mesh = node.GetMesh().NewInstance()
    mesh.DeepCopy(node.GetMesh())
    toWorld = vtk.vtkGeneralTransform()
    parent = node.GetParentTransformNode()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, toWorld)
    world = vtk.vtkPoints()
    world.SetDataTypeToDouble()
    toWorld.TransformPoints(mesh.GetPoints(), world)
    moved = _pushed(carrier, vtk_to_numpy(world.GetData()))
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(moved.astype(np.float32), deep=True))
    mesh.SetPoints(points)
    if isinstance(mesh, vtk.vtkPolyData) and mesh.GetPointData().GetNormals() is not None:
        again = vtk.vtkPolyDataNormals()
        again.SetInputData(mesh)
        again.SplittingOff()
        again.ConsistencyOff()
        again.Update()
        mesh = again.GetOutput()
    new.SetAndObserveMesh(mesh)


def _carryMarkups(node, new, carrier) -> None:
    """Control points in their order with their labels; a ROI becomes the box that holds it."""
    if node.IsA("vtkMRMLMarkupsPlaneNode"):
        raise _refusal("A plane does not stay a plane; points, lines, curves and ROIs are carried.")
    name = new.GetName()
    new.CopyContent(node)
    new.SetName(name)
    new.SetAndObserveTransformNodeID(None)
    placed = [
        k
        for k in range(node.GetNumberOfControlPoints())
        if node.GetNthControlPointPositionStatus(k) == slicer.vtkMRMLMarkupsNode.PositionDefined
    ]
    if not placed:
        raise _refusal("The markups hold no placed points.")
    if node.IsA("vtkMRMLMarkupsROINode"):
        _carryBox(node, new, carrier)
        return
    world = np.array([node.GetNthControlPointPositionWorld(k) for k in placed])
    for k, point in zip(placed, _pushed(carrier, world), strict=True):
        new.SetNthControlPointPositionWorld(k, *point.tolist())


def _carryBox(node, new, carrier) -> None:
    from GlideRegLib.geometry import flip_lps_ras
    from GlideRegLib.propagation.markups import carried_box

    matrix = slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix())
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = flip_lps_ras((matrix[:3, :3] / lengths).T).T
    size = np.asarray(node.GetSize()) * lengths
    center, axes, size = carried_box(flip_lps_ras(matrix[:3, 3]), axes, size, carrier.push)
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = flip_lps_ras(axes.T).T, flip_lps_ras(center)
    result = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(result, placed)
    new.SetAndObserveObjectToNodeMatrix(result)
    new.SetSize(*size.tolist())


def _pushed(carrier, points: np.ndarray) -> np.ndarray:
    """World RAS points (N, 3), carried."""
    from GlideRegLib.geometry import flip_lps_ras

    return flip_lps_ras(carrier.push(flip_lps_ras(points)))


def _copyLooks(node, new) -> None:
    """Colors, windows and opacities of the old node."""
    new.CreateDefaultDisplayNodes()
    old, display = node.GetDisplayNode(), new.GetDisplayNode()
    if old is not None and display is not None and old.GetClassName() == display.GetClassName():
        display.CopyContent(old)
