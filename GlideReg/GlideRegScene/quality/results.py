"""From the worker's files to nodes: tables, markers at folds, the map of the determinant."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk
import vtk

from ..nodes import CreatedNodes, activeListKept, isInScene
from ..results import FOLDER
from . import overlay, tables
from .request import AssessRequest, remember

if TYPE_CHECKING:
    from GlideRegLib.assurance.records import Assessment

_FOLDED = (1.0, 0.0, 1.0)
_REPORT = ("assessment.html", "assessment.json")


@dataclass
class QualityFiles:
    """The worker's output, read whole before the scene is touched."""

    assessment: "Assessment"
    text: str
    jacobian: sitk.Image | None = None
    report: Path | None = None


@dataclass
class QualityNodes:
    """What a finished assessment put into the scene, and where its report lies."""

    table: object
    assessment: "Assessment"
    report: Path | None = None
    created: list = field(default_factory=list)


def readQuality(request: AssessRequest, folder: Path) -> QualityFiles:
    """Reads what the worker wrote, in any thread, and puts the report where it is wanted.

    Raises the library's InputError or OutputError.
    """
    from GlideRegLib.assurance.records import Assessment
    from GlideRegLib.wholefolder import whole_folder

    text = (folder / "assessment.json").read_text(encoding="utf-8")
    assessment = Assessment.from_dict(json.loads(text))
    map_ = folder / "jacobian.mha"
    files = QualityFiles(assessment, text)
    files.jacobian = sitk.ReadImage(str(map_)) if map_.is_file() else None
    if request.reportFolder is not None:
        with whole_folder(request.reportFolder) as partial:
            for name in _REPORT:
                (partial / name).write_bytes((folder / name).read_bytes())
        files.report = Path(request.reportFolder) / _REPORT[0]
    return files


def importQuality(request: AssessRequest, files: QualityFiles) -> QualityNodes:
    """Puts a finished assessment into the scene, all of it or nothing. The table of an earlier one
    of the same transform is filled anew. Raises InputError when an input was removed meanwhile."""
    from GlideRegLib.errors import InputError

    if not all(
        isInScene(n) for n in (request.fixedVolume, request.movingVolume, request.transform)
    ):
        raise InputError("An input was removed during the run; its assessment was dropped.")
    scene, assessment = request.transform.GetScene(), files.assessment
    with CreatedNodes(scene) as created:
        name = f"Quality {request.transform.GetName()}"
        table = reusableTable(request)
        if table is None:
            table = created.add("vtkMRMLTableNode", name, unique=True)
        remember(table, request)
        tables.store(table, assessment, files.text)
        motion = _ensured(table, tables.MOTION_ROLE, "vtkMRMLTableNode", "Motion", created)
        tables.storeMotion(motion, assessment)
        _markFolds(table, assessment, created)
        if files.jacobian is not None:
            overlay.storeMap(table, files.jacobian, created)
        else:
            overlay.forgetMap(table)  # it would belong to another assessment
        _group(table, request, created)
        return QualityNodes(table, assessment, files.report, list(created.nodes))


def reusableTable(request: AssessRequest):
    """The table of the request when it is about the same transform, else None."""
    table = request.table
    if not isInScene(table) or not tables.isQualityTable(table):
        return None
    return table if table.GetNodeReference("GlideRegTransform") is request.transform else None


def _ensured(table, role: str, className: str, name: str, created: CreatedNodes):
    """The node in a role of the table, made where it is missing."""
    node = tables.belonging(table, role)
    if node is None:
        node = created.add(className, f"{name}, {table.GetName()}", unique=True)
        table.SetNodeReferenceID(role, node.GetID())
    return node


def _markFolds(table, assessment: "Assessment", created: CreatedNodes) -> None:
    """A point at each of the largest folded clusters; no list at all when nothing folds."""
    from GlideRegLib.geometry import flip_lps_ras

    if not assessment.folds:
        node = tables.belonging(table, tables.FOLDS_ROLE)
        if node is not None:
            _removeWithDisplays(node)
        return
    with activeListKept(table.GetScene()):
        role = tables.FOLDS_ROLE
        node = _ensured(table, role, "vtkMRMLMarkupsFiducialNode", "Folds", created)
    node.RemoveAllControlPoints()
    for k, fold in enumerate(assessment.folds):
        node.AddControlPointWorld(vtk.vtkVector3d(*flip_lps_ras(fold.place).tolist()), fold.name)
        node.SetNthControlPointDescription(k, fold.why)
        node.SetNthControlPointLocked(k, True)
    node.SetDescription(tables.NOTICE)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    for set_ in (display.SetSelectedColor, display.SetColor, display.SetActiveColor):
        set_(*_FOLDED)
    display.SetGlyphTypeFromString("CrossDot2D")
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(8.0)
    display.SetTextScale(3.0)
    display.SetOccludedVisibility(True)


def _removeWithDisplays(node) -> None:
    scene = node.GetScene()
    for display in [node.GetNthDisplayNode(k) for k in range(node.GetNumberOfDisplayNodes())]:
        scene.RemoveNode(display)
    scene.RemoveNode(node)


def _group(table, request: AssessRequest, created: CreatedNodes) -> None:
    """Into the folder of the registration, else into one of our own beside the fixed volume."""
    folder = created.folderOf(table, FOLDER) or created.folderOf(request.transform, FOLDER)
    folder = folder or created.addFolder(f"{FOLDER}{table.GetName()}", request.fixedVolume)
    roles = (tables.MOTION_ROLE, tables.FOLDS_ROLE, tables.JACOBIAN_ROLE)
    for node in (table, *(tables.belonging(table, role) for role in roles)):
        if node is not None:
            created.moveInto(folder, node)
