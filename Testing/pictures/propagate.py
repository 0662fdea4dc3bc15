"""Makes Resources/Screenshots/propagate.jpg: ``python Testing/pictures/propagate.py [FOLDER]``.

The lung, a target, a path and a dose of the real follow-up scan, carried to the baseline by clicks.
The target, the path and the dose are made up; the lung is the mask that comes with the pair. The
section is drawn by Qt with the stand-ins of the tests, the views by Slicer's own displayable
managers.
"""

from __future__ import annotations

import sys
from pathlib import Path

_TESTING = Path(__file__).resolve().parents[1]
for folder in (_TESTING.parent / "GlideReg", _TESTING / "pictures", _TESTING / "panel", _TESTING):
    sys.path.insert(0, str(folder))

from slicer_harness.views import SliceView, pin_rendering  # noqa: E402

pin_rendering()

import slicer_harness  # noqa: E402

slicer_harness.install()

import numpy as np  # noqa: E402
import qt  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from driving import OpenModule  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from PySide6 import QtWidgets  # noqa: E402
from real_pair import load_pair  # noqa: E402

from GlideRegLib.sample_data.local import data_folder  # noqa: E402
from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402

SCREENSHOTS = _TESTING.parent / "Resources" / "Screenshots"
CELL, PANEL = (330, 520), 470
#: The made-up target: around which landmark, radius in mm, and its dose in Gy.
TARGET, RADIUS, DOSE = 2, 14.0, 60.0
COLORS = {"Lung": (0.3, 0.7, 1.0), "PTV": (1.0, 0.35, 0.3)}


def contoured(moving, points: np.ndarray) -> dict[str, object]:
    """Structures, a path and a dose on the follow-up scan; ``points`` are its landmarks."""
    array = sitk.GetArrayFromImage(
        sitk.ReadImage(str(data_folder() / "lung_followup" / "followup_mask.mha"))
    )
    places = world(moving, array.shape)
    away = np.linalg.norm(places - points[TARGET], axis=-1)
    labels = np.where(away < RADIUS, 2, array > 0).astype(np.uint8)
    structures = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Structures")
    structures.SetReferenceImageGeometryParameterFromVolumeNode(moving)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "L")
    slicer.util.updateVolumeFromArray(node, labels)
    node.CopyOrientation(moving)
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(node, structures)
    slicer.mrmlScene.RemoveNode(node)
    for k, (name, color) in enumerate(COLORS.items()):
        segment = structures.GetSegmentation().GetNthSegment(k)
        segment.SetName(name)
        segment.SetColor(*color)
    structures.CreateDefaultDisplayNodes()
    structures.GetDisplayNode().SetOpacity2DFill(0.0)
    dose = DOSE / (1 + np.exp((away - RADIUS - 6) / 5))
    return {
        "structures": structures,
        "path": path_through(points),
        "dose": dose_node(dose.astype(np.float32), moving),
    }


def world(node, shape: tuple[int, ...]) -> np.ndarray:
    """RAS of every voxel (K, J, I, 3)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    matrix = slicer.util.arrayFromVTKMatrix(matrix)
    k, j, i = np.indices(shape, np.float32)
    return np.stack((i, j, k), axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]


def path_through(points: np.ndarray) -> object:
    """A curve from the hilum into the target, in its coronal plane."""
    curve = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsCurveNode", "Path")
    end = points[TARGET]
    for share, aside in ((1.0, 0), (0.66, 6), (0.33, 4), (0.0, 0)):
        start = np.array([0.0, 0.0, 34.0]) * np.sign(points[:, 2].mean() - end[2])
        sideways = np.array([np.sign(points[:, 0].mean() - end[0]) * 40.0 + aside, 0.0, 0.0])
        curve.AddControlPoint(vtk.vtkVector3d(*(end + share * (start + sideways)).tolist()))
    curve.CreateDefaultDisplayNodes()
    display = curve.GetDisplayNode()
    display.SetSelectedColor(1.0, 0.85, 0.2)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetGlyphScale(2.0)
    return curve


def dose_node(values: np.ndarray, moving) -> object:
    node = slicer.util.addVolumeFromArray(values, name="Dose")
    node.CopyOrientation(moving)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeReverseRainbow")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, DOSE)
    display.SetThreshold(15, 2 * DOSE)
    display.SetApplyThreshold(True)
    return node


def propagated(harness: SceneHarness) -> tuple[OpenModule, dict, dict]:
    """Registers and carries by clicks; nodes before, and new ones by the same names."""
    slicer.app.application_logic = harness.application
    nodes = load_pair()
    points = slicer.util.arrayFromMarkupsControlPoints(nodes["movingLandmarks"])
    nodes.update(contoured(nodes["moving"], points))
    module = OpenModule()
    module.ui.fixedVolumeSelector.setCurrentNode(nodes["fixed"])
    module.ui.movingVolumeSelector.setCurrentNode(nodes["moving"])
    module.click("fastButton")
    module.parameters.encoder = "none"
    module.processEvents()
    module.click("applyButton")
    module.waitForTheRun(300)
    module.openSection("propagateSection")
    table = module.ui.propagateTable
    for row in range(table.rowCount):
        name = table.item(row, 0).text()
        if name in ("Path", "Dose"):
            table.item(row, 0).setCheckState(qt.Qt.Checked)
        if name == "Dose":
            table.cellWidget(row, 1).setCurrentIndex(1)
    module.ui.smoothPropagatedCheckBox.checked = True
    module.processEvents()
    picture = panel_picture(module)
    module.click("propagateButton")
    module.waitForTheRun(300)
    new = {
        role: slicer.mrmlScene.GetFirstNodeByName(f"{nodes[role].GetName()} on Baseline CT")
        for role in ("structures", "path", "dose")
    }
    return module, nodes, {**new, "panel": picture}


def panel_picture(module: OpenModule) -> np.ndarray:
    """The section alone, with what is ticked."""
    for name in ("inputs", "outputs", "method", "result", "display"):
        getattr(module.ui, f"{name}Section").collapsed = True
    module.parent.resize(PANEL, module.parent.sizeHint.height())
    module.processEvents()
    section = module.ui.propagateSection
    top = section.mapTo(module.parent, section.rect.topLeft()).y()
    picture = QtWidgets.QWidget.grab(module.parent).copy(0, top - 4, PANEL, section.height + 8)
    picture = picture.toImage().convertToFormat(picture.toImage().Format.Format_RGB888)
    rows = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), -1)
    return rows[:, : 3 * picture.width()].reshape(picture.height(), picture.width(), 3).copy()


def view_picture(view: SliceView, volume, shown: dict, hidden: dict) -> np.ndarray:
    """One scan with what was drawn on it, or carried to it, through the middle of its target."""
    for nodes, visible in ((hidden, False), (shown, True)):
        for role in ("structures", "path"):
            nodes[role].GetDisplayNode().SetVisibility(visible)
    path = shown["path"]
    center = path.GetNthControlPointPositionWorld(path.GetNumberOfControlPoints() - 1)
    view.show(volume, shown["dose"], 0.35).fit()
    wide, high, depth = view.node.GetFieldOfView()
    view.node.SetFieldOfView(0.62 * wide, 0.62 * high, depth)
    return view.jump(center).render(None)


def propagate_picture(into: Path) -> None:
    """The section at the left, both scans at the right."""
    harness = fresh_scene()
    module, old, new = propagated(harness)
    view = SliceView(harness, "Green", size=CELL)
    cells = (
        ("Follow-up: as it was drawn", view_picture(view, old["moving"], old, new)),
        ("Baseline: carried over", view_picture(view, old["fixed"], new, old)),
    )
    panel = new["panel"]
    width, height = CELL
    image = Image.new("RGB", (PANEL + 2 * (width + 6), max(height + 26, len(panel))), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    image.paste(Image.fromarray(panel), (0, 0))
    for k, (title, picture) in enumerate(cells):
        left = PANEL + 6 + k * (width + 6)
        draw.text((left + 4, 4), title, fill="black", font=font)
        image.paste(Image.fromarray(picture), (left, 26))
    image.save(into / "propagate.jpg", quality=84, optimize=True)
    module.close()
    harness.close()


if __name__ == "__main__":
    propagate_picture(Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENSHOTS)
