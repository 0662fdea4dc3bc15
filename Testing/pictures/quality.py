"""Makes Resources/Screenshots/quality-panel.png and quality-views.jpg:
``python Testing/pictures/quality.py``.

The real follow-up pair, registered both ways and assessed by clicks; lung and vessels are drawn
by thresholds in both scans. The panel is drawn by Qt with the stand-ins of the tests, the views by
Slicer's own displayable managers.
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
import slicer  # noqa: E402
from driving import OpenModule  # noqa: E402
from PIL import Image  # noqa: E402
from PySide6 import QtWidgets  # noqa: E402
from real_pair import load_pair  # noqa: E402
from scipy import ndimage  # noqa: E402

from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402

SCREENSHOTS = _TESTING.parent / "Resources" / "Screenshots"
WIDTH, SIDE = 640, 460


def structures(volume, name: str):
    """The lung and its vessels as segments that overlap: air in the body, and what it encloses."""
    from GlideRegLib.prepare import body_mask, normalize_intensity
    from GlideRegLib.volume import Volume
    from GlideRegScene.inputs import worldImage

    scan = Volume.from_sitk(worldImage(volume)[0])
    body = body_mask(normalize_intensity(scan, "ct"), "ct")
    air = ndimage.binary_opening(body & (scan.array < -500), iterations=2)
    lung = ndimage.binary_closing(air, iterations=4)
    inner = ndimage.binary_erosion(lung, iterations=4)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for part, mask in (("Lung", lung), ("Vessels", inner & (scan.array > -500))):
        identifier = node.GetSegmentation().AddEmptySegment(part, part)
        array = mask.astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, identifier, volume)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility(False)
    return node


def assessed() -> tuple[SceneHarness, OpenModule]:
    """Registers both ways and assesses."""
    harness = fresh_scene()
    nodes = load_pair()
    module = OpenModule()
    fast = {"features": {"encoder": "none"}}
    back = module.logic.register(nodes["moving"], nodes["fixed"], preset="fast", settings=fast)
    transform = module.logic.register(nodes["fixed"], nodes["moving"], preset="fast", settings=fast)
    for role in ("fixed", "moving"):
        getattr(module.ui, f"{role}VolumeSelector").setCurrentNode(nodes[role])
        getattr(module.ui, f"{role}LandmarksSelector").setCurrentNode(nodes[f"{role}Landmarks"])
        name = f"quality{role.capitalize()}StructuresSelector"
        drawn = structures(nodes[role], f"Structures, {nodes[role].GetName()}")
        getattr(module.ui, name).setCurrentNode(drawn)
    module.parameters.transform = transform
    module.openSection("qualitySection")
    module.ui.qualityBackwardSelector.setCurrentNode(back)
    module.processEvents()
    module.click("assessButton")
    module.waitForTheRun(300)
    return harness, module


def panel_picture(module: OpenModule, path: Path) -> None:
    """The section alone, as wide as a panel that was drawn wider."""
    for name in ("inputs", "outputs", "method", "result", "display"):
        getattr(module.ui, f"{name}Section").collapsed = True
    module.processEvents()
    module.parent.resize(WIDTH, module.parent.sizeHint.height())
    module.processEvents()
    section = module.ui.qualitySection
    top = section.mapTo(module.parent, section.rect.topLeft()).y()
    picture = QtWidgets.QWidget.grab(module.parent)
    assert picture.copy(0, top - 4, WIDTH, section.height + 8).save(str(path))


def views_picture(harness: SceneHarness, module: OpenModule, path: Path) -> None:
    """The Jacobian map with its legend at the worst landmark, in two planes."""
    views = [SliceView(harness, name, size=(SIDE, SIDE)) for name in ("Red", "Green")]
    for view in views:
        legend = slicer.vtkMRMLColorLegendDisplayableManager()
        legend.SetMRMLApplicationLogic(harness.application)
        view.group.AddDisplayableManager(legend)
    module.click("qualityJacobianButton")
    module.waitForTheRun(300)
    for view in views:
        view.fit()
    module.click("nextPlaceButton")
    picture = np.concatenate([view.render(None) for view in views], axis=1)
    Image.fromarray(picture).save(path, quality=88)


if __name__ == "__main__":
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENSHOTS
    scene_, module_ = assessed()
    module_.ui.qualityMeasuresTable.setCurrentCell(0, 0)
    module_.processEvents()
    panel_picture(module_, into / "quality-panel.png")
    views_picture(scene_, module_, into / "quality-views.jpg")
    module_.close()
    slicer.mrmlScene.Clear(1)
