"""Makes Resources/Screenshots/nodules-panel.png and nodules-views.png:
``python Testing/pictures/nodules.py``.

A follow-up of the nodule phantom, registered and tracked by clicks. The panel is drawn by Qt with
the stand-ins of the tests, the views by Slicer's own displayable managers.
"""

from __future__ import annotations

import sys
from pathlib import Path

_TESTING = Path(__file__).resolve().parents[1]
for folder in (_TESTING.parent / "GlideReg", _TESTING / "pictures", _TESTING / "panel", _TESTING):
    sys.path.insert(0, str(folder))

from slicer_harness.views import SliceView, ThreeDView, pin_rendering, save_png  # noqa: E402

pin_rendering()

import slicer_harness  # noqa: E402

slicer_harness.install()

import numpy as np  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from driving import OpenModule  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from PySide6 import QtWidgets  # noqa: E402

from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402

SCREENSHOTS = _TESTING.parent / "Resources" / "Screenshots"
WIDTH, SIDE = 640, 300
SPACING = 1.5


def load_phantom() -> dict[str, object]:
    """The phantom's two scans and the centers of its nodules as nodes."""
    from GlideRegLib.sample_data.nodule_phantom import make_nodule_phantom
    from GlideRegScene.transforms import rasMatrix

    pair = make_nodule_phantom(spacing=SPACING)
    nodes: dict[str, object] = {}
    for role, volume, name in (
        ("fixed", pair.fixed, "Current CT"),
        ("moving", pair.moving, "Prior CT"),
    ):
        array = np.round(volume.array).astype(np.int16)
        node = slicer.util.addVolumeFromArray(array, name=name)
        node.SetIJKToRASMatrix(rasMatrix(volume.to_sitk()))
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(1400, -500)
        points = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLMarkupsFiducialNode", f"Nodules, {name}"
        )
        points.CreateDefaultDisplayNodes()
        points.GetDisplayNode().SetVisibility(False)
        for nodule in pair.nodules:
            center = getattr(nodule, f"{role}_center")
            if center is not None:
                x, y, z = center
                points.AddControlPoint(vtk.vtkVector3d(-x, -y, z), f"N{nodule.number}")
        nodes[role], nodes[f"{role}Nodules"] = node, points
    return nodes


def tracked() -> tuple[SceneHarness, OpenModule]:
    """Registers and tracks by clicks."""
    harness = fresh_scene()
    nodes = load_phantom()
    module = OpenModule()
    module.ui.fixedVolumeSelector.setCurrentNode(nodes["fixed"])
    module.ui.movingVolumeSelector.setCurrentNode(nodes["moving"])
    module.click("fastButton")
    module.parameters.encoder = "none"
    module.processEvents()
    module.click("applyButton")
    module.waitForTheRun(300)
    module.openSection("nodulesSection")
    module.ui.priorNodulesSelector.setCurrentNode(nodes["movingNodules"])
    module.ui.currentNodulesSelector.setCurrentNode(nodes["fixedNodules"])
    module.ui.priorDateEdit.text, module.ui.currentDateEdit.text = "2024-01-31", "2024-08-18"
    module.processEvents()
    module.click("trackButton")
    module.waitForTheRun(300)
    return harness, module


def choose(module: OpenModule, name: str) -> None:
    """Chooses the row of a nodule."""
    widget = module.ui.nodulesTable
    for row in range(widget.rowCount):
        if widget.item(row, 0).text() == name:
            widget.setCurrentCell(row, 0)
    module.processEvents()


def panel_picture(module: OpenModule, path: Path) -> None:
    """The section alone, as wide as a panel that was drawn wider."""
    for name in ("inputs", "outputs", "method", "result", "display"):
        getattr(module.ui, f"{name}Section").collapsed = True
    module.ui.nodulesTable.setMinimumHeight(352)
    module.processEvents()
    module.parent.resize(WIDTH, module.parent.sizeHint.height())
    module.processEvents()
    section = module.ui.nodulesSection
    top = section.mapTo(module.parent, section.rect.topLeft()).y()
    picture = QtWidgets.QWidget.grab(module.parent)
    assert picture.copy(0, top - 4, WIDTH, section.height + 8).save(str(path))


def views_picture(harness: SceneHarness, module: OpenModule, path: Path) -> None:
    """Prior, warped prior and current in three planes, and all markers in 3-D."""
    from GlideRegScene.nodules import views

    table = module.parameters.noduleTable
    pictures = []
    slices = {
        (column, plane): SliceView(harness, views.viewName(column, plane), size=(SIDE, SIDE))
        for plane in views.PLANES
        for column in views.COLUMNS
    }
    views.showComparison(table)
    module.panel.nodules.jump()
    for plane in views.PLANES:
        row = [slices[column, plane].render(None) for column in views.COLUMNS]
        pictures.append(np.concatenate(row, axis=1))
    titles = ("prior", "prior, warped", "current")
    grid = np.concatenate([_titles(titles, SIDE), *pictures])
    red = SliceView(harness, "Green", size=(300, 300)).fit()
    red.node.SetSliceVisible(True)
    red.render(None)
    view = ThreeDView(harness, size=(700, grid.shape[0])).look_from("anterior").turn(25, 15)
    save_png(np.concatenate([grid, view.render(None)], axis=1), path)


def _titles(texts: tuple[str, ...], width: int) -> np.ndarray:
    strip = Image.new("RGB", (width * len(texts), 24), "black")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(14)
    for k, text in enumerate(texts):
        draw.text((width * k + 8, 4), text, fill="white", font=font)
    return np.asarray(strip)


if __name__ == "__main__":
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENSHOTS
    scene_, module_ = tracked()
    for name in ("N1", "N2", "N3"):
        choose(module_, name)
        module_.click("confirmNoduleButton")
    choose(module_, "N4")
    panel_picture(module_, into / "nodules-panel.png")
    views_picture(scene_, module_, into / "nodules-views.png")
    module_.close()
    slicer.mrmlScene.Clear(1)
