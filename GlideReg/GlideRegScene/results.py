"""From the worker's files to nodes: transform, warped volume, Jacobian, landmark table and plot."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer

from .colors import RANGE, jacobianColors
from .inputs import LandmarkPairs, Request, landmarkPairs, worldMatrix
from .landmarks import addLandmarkPlot, addLandmarkTable, landmarkErrors
from .nodes import CreatedNodes, isInScene
from .regions import FIXED_ROLE as FIXED_REGIONS_ROLE
from .regions import MOVING_ROLE as MOVING_REGIONS_ROLE
from .regions import RegionFiles, addRegions, readRegions
from .transforms import ATTRIBUTE, gridTransform, isOurs, rasMatrix

JACOBIAN_ROLE = "GlideRegJacobian"
WARPED_ROLE = "GlideRegWarped"
UNCERTAINTY_ROLE = "GlideRegUncertainty"
TABLE_ROLE = "GlideRegLandmarkTable"
PLOT_ROLE = "GlideRegLandmarkPlot"
FIXED_LANDMARKS_ROLE = "GlideRegFixedLandmarks"
MOVING_LANDMARKS_ROLE = "GlideRegMovingLandmarks"
#: What the names of our folders in the subject hierarchy begin with.
FOLDER = "GlideReg "


@dataclass
class ResultNodes:
    """What a finished run put into the scene. ``report`` is the library's result.json."""

    transform: object
    warpedVolume: object
    jacobian: object
    uncertainty: object = None
    landmarkTable: object = None
    landmarkPlot: object = None
    fixedRegions: object = None
    movingRegions: object = None
    report: dict = field(default_factory=dict)
    created: list = field(default_factory=list)


@dataclass
class ResultFiles:
    """The worker's output, read whole before the scene is touched."""

    displacement: sitk.Image
    warped: sitk.Image
    jacobian: sitk.Image
    report: dict
    uncertainty: sitk.Image | None = None
    regions: RegionFiles | None = None


def readFiles(folder: Path) -> ResultFiles:
    """Reads what the worker wrote, in any thread. Raises OSError, RuntimeError or ValueError."""
    report = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    names = ("displacement", "warped", "jacobian")
    estimated = folder / "uncertainty.mha"
    uncertainty = sitk.ReadImage(str(estimated)) if estimated.is_file() else None
    images = (sitk.ReadImage(str(folder / f"{name}.mha")) for name in names)
    return ResultFiles(*images, report, uncertainty, readRegions(folder))


def importResults(
    request: Request, files: ResultFiles, fixedMatrix: np.ndarray | None
) -> ResultNodes:
    """Puts a finished run into the scene, all of it or nothing.

    Existing output nodes are filled. ``fixedMatrix``: where the fixed voxels were when the run
    began (index to world RAS), None when a resampled copy was registered; if the fixed volume has
    moved since, the warped volume keeps to where it was. Raises InputError when an input was
    removed meanwhile.
    """
    from GlideRegLib.errors import InputError

    if not isInScene(request.fixedVolume) or not isInScene(request.movingVolume):
        raise InputError("An input volume was removed during the run; the result was dropped.")
    scene = request.fixedVolume.GetScene()
    pairs = _landmarks(request)
    with CreatedNodes(scene) as created:
        label = f"{request.movingVolume.GetName()} to {request.fixedVolume.GetName()}"
        transform = _output(request.transform, created, "vtkMRMLTransformNode", label)
        label = transform.GetName()
        warped = _output(
            request.warpedVolume,
            created,
            "vtkMRMLScalarVolumeNode",
            f"{request.movingVolume.GetName()} warped to {request.fixedVolume.GetName()}",
        )
        replaced = _earlierResults(transform)
        result = ResultNodes(transform, warped, None, report=files.report)
        result.jacobian = _jacobianVolume(files.jacobian, f"Jacobian {label}", created)
        if files.uncertainty is not None:
            name = f"Expected error (mm) {label}"
            result.uncertainty = _uncertaintyVolume(files.uncertainty, name, created)
        if files.regions is not None:
            volumes = (request.fixedVolume, request.movingVolume)
            result.fixedRegions, result.movingRegions = addRegions(files.regions, *volumes, created)
        _fillWarped(warped, files.warped, request, fixedMatrix)
        _fillTransform(transform, files, request)
        _setReferences(transform, result)
        if pairs is not None:
            _addLandmarkResults(result, request, pairs, label, created)
        _group(result, request, label, created)
        result.created = list(created.nodes)
    for node in replaced:
        scene.RemoveNode(node)
    return result


def forgetOutputsOfOthers(request: Request) -> None:
    """Lets a request make new outputs when the chosen ones are the result of other inputs.

    The panel remembers the outputs of the last run; the next patient's result must not end up in
    nodes that carry the last one's name.
    """
    transform = request.transform
    if transform is None or not isOurs(transform) or belongsTo(transform, request):
        return
    if request.warpedVolume is transform.GetNodeReference(WARPED_ROLE):
        request.warpedVolume = None
    request.transform = None


def belongsTo(transform, chosen) -> bool:
    """Whether a result node was made from the chosen fixedVolume and movingVolume (of a request or
    of the parameters)."""
    fixed = transform.GetNodeReference(transform.GetFixedNodeReferenceRole())
    moving = transform.GetNodeReference(transform.GetMovingNodeReferenceRole())
    return fixed is chosen.fixedVolume and moving is chosen.movingVolume


def _setReferences(transform, result: ResultNodes) -> None:
    for role in (TABLE_ROLE, PLOT_ROLE, FIXED_LANDMARKS_ROLE, MOVING_LANDMARKS_ROLE):
        transform.SetNodeReferenceID(role, None)
    transform.SetNodeReferenceID(WARPED_ROLE, result.warpedVolume.GetID())
    transform.SetNodeReferenceID(JACOBIAN_ROLE, result.jacobian.GetID())
    for role, node in (
        (UNCERTAINTY_ROLE, result.uncertainty),
        (FIXED_REGIONS_ROLE, result.fixedRegions),
        (MOVING_REGIONS_ROLE, result.movingRegions),
    ):
        transform.SetNodeReferenceID(role, node.GetID() if node is not None else None)


def _group(result: ResultNodes, request: Request, label: str, created: CreatedNodes) -> None:
    """Everything into one folder of the subject hierarchy, beside the fixed volume."""
    folder = created.folderOf(result.transform, FOLDER)
    folder = folder or created.addFolder(f"{FOLDER}{label}", request.fixedVolume)
    for node in (
        result.warpedVolume,
        result.transform,
        result.jacobian,
        result.uncertainty,
        result.landmarkTable,
        result.landmarkPlot,
        result.fixedRegions,
        result.movingRegions,
    ):
        if node is not None:
            created.moveInto(folder, node)


def _earlierResults(transform) -> list:
    """What an earlier run put beside this output transform: the new results take its place."""
    roles = (JACOBIAN_ROLE, UNCERTAINTY_ROLE, TABLE_ROLE, PLOT_ROLE)
    nodes = [transform.GetNodeReference(role) for role in roles]
    jacobian, uncertainty, _, chart = nodes
    regions = [transform.GetNodeReference(r) for r in (FIXED_REGIONS_ROLE, MOVING_REGIONS_ROLE)]
    for shown in (jacobian, uncertainty, *regions):
        if shown is not None:
            nodes += [shown.GetDisplayNode(), shown.GetStorageNode()]
    if chart is not None:
        nodes += [chart.GetNthPlotSeriesNode(k) for k in range(chart.GetNumberOfPlotSeriesNodes())]
    return [node for node in (*nodes, *regions) if node is not None]


def _output(existing, created: CreatedNodes, className: str, name: str):
    return existing if isInScene(existing) else created.add(className, name, unique=True)


def _fillTransform(node, files: ResultFiles, request: Request) -> None:
    node.SetAndObserveTransformNodeID(None)
    node.SetAndObserveTransformFromParent(gridTransform(files.displacement))
    node.SetNodeReferenceID(node.GetMovingNodeReferenceRole(), request.movingVolume.GetID())
    node.SetNodeReferenceID(node.GetFixedNodeReferenceRole(), request.fixedVolume.GetID())
    node.SetAttribute(ATTRIBUTE, json.dumps(summary(files.report)))
    node.SetDescription("Maps fixed to moving (from parent). Research use only.")


def summary(report: dict) -> dict:
    """What stays with the transform node in the scene: measures, encoder, seconds, versions."""
    provenance = report["provenance"]
    return {
        "quality": report["quality"],
        "encoder": report["encoder"],
        "seconds": report["cost"]["seconds"]["total"],
        "modality": report["modality"],
        "preset": provenance["settings"]["preset_name"],
        "method": provenance["settings"].get("method", "glide"),
        "versions": provenance["versions"],
        "device": provenance["device"],
    }


def _fillWarped(node, image: sitk.Image, request: Request, fixedMatrix: np.ndarray | None) -> None:
    """The warped voxels on the fixed grid: same geometry, same parent transform, same window."""
    fixed, moving = request.fixedVolume, request.movingVolume
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    if _isWhereItWas(fixed, fixedMatrix, image):
        node.CopyOrientation(fixed)
        node.SetAndObserveTransformNodeID(fixed.GetTransformNodeID())
    else:
        node.SetIJKToRASMatrix(rasMatrix(image))
        node.SetAndObserveTransformNodeID(None)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    source, target = moving.GetDisplayNode(), node.GetDisplayNode()
    if source is not None and target is not None:
        target.SetAndObserveColorNodeID(source.GetColorNodeID())
        target.SetAutoWindowLevel(False)
        target.SetWindowLevel(source.GetWindow(), source.GetLevel())


def _isWhereItWas(fixed, matrix: np.ndarray | None, image: sitk.Image) -> bool:
    """Whether the fixed volume still has the grid that was registered."""
    parent = fixed.GetParentTransformNode()
    if matrix is None or (parent is not None and not parent.IsTransformToWorldLinear()):
        return False
    same = tuple(fixed.GetImageData().GetDimensions()) == image.GetSize()
    return same and bool(np.abs(worldMatrix(fixed) - matrix).max() < 1e-4)


def _jacobianVolume(image: sitk.Image, name: str, created: CreatedNodes):
    """The determinant on its own lattice, in colors that tell shrinking, growing and folding."""
    colors = jacobianColors(created.scene)
    node = created.add("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    node.SetIJKToRASMatrix(rasMatrix(image))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is not None:
        display.SetAndObserveColorNodeID(colors.GetID())
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*RANGE)
    return node


def _uncertaintyVolume(image: sitk.Image, name: str, created: CreatedNodes):
    """The expected error of the field in mm, on its own lattice; shown from 0 to 5 mm."""
    node = created.add("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    node.SetIJKToRASMatrix(rasMatrix(image))
    node.CreateDefaultDisplayNodes()
    if node.GetDisplayNode() is not None:
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevelMinMax(0.0, 5.0)
    return node


def _landmarks(request: Request) -> LandmarkPairs | None:
    """The landmarks as they stand now; None when there are none, or they were changed meanwhile
    into something that does not correspond (the transform is still worth having)."""
    from GlideRegLib.errors import InputError

    if not (isInScene(request.fixedLandmarks) and isInScene(request.movingLandmarks)):
        return None
    try:
        return landmarkPairs(request.fixedLandmarks, request.movingLandmarks)
    except InputError:
        return None


def _addLandmarkResults(
    result: ResultNodes, request: Request, pairs: LandmarkPairs, label: str, created: CreatedNodes
) -> None:
    errors = landmarkErrors(result.transform, pairs)
    result.landmarkTable = addLandmarkTable(pairs, errors, f"TRE {label}", created)
    result.landmarkPlot = addLandmarkPlot(result.landmarkTable, f"TRE plot {label}", created)
    references = (
        (TABLE_ROLE, result.landmarkTable),
        (PLOT_ROLE, result.landmarkPlot),
        (FIXED_LANDMARKS_ROLE, request.fixedLandmarks),
        (MOVING_LANDMARKS_ROLE, request.movingLandmarks),
    )
    for role, node in references:
        result.transform.SetNodeReferenceID(role, node.GetID())
