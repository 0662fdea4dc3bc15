"""Makes Resources/Screenshots/compare.jpg: ``python Testing/pictures/compare.py [FOLDER]``.

The section Compare, and every way to compare the real follow-up pair, in one sheet. The views are
drawn by Slicer's own slice logic and displayable managers, the section by Qt with the stand-ins of
the tests.
"""

from __future__ import annotations

import sys
from dataclasses import replace
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
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from PySide6 import QtWidgets  # noqa: E402
from real_pair import load_pair  # noqa: E402

from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402

SCREENSHOTS = _TESTING.parent / "Resources" / "Screenshots"
CELL = (196, 272)
PANEL = 520


def registered(harness: SceneHarness) -> tuple[OpenModule, dict[str, object]]:
    """The pair, registered by a click: fast, without encoder."""
    slicer.app.application_logic = harness.application
    nodes = load_pair()
    module = OpenModule()
    module.ui.fixedVolumeSelector.setCurrentNode(nodes["fixed"])
    module.ui.movingVolumeSelector.setCurrentNode(nodes["moving"])
    module.click("fastButton")
    module.parameters.encoder = "none"
    module.processEvents()
    module.click("applyButton")
    module.waitForTheRun(300)
    return module, nodes


def cells(harness: SceneHarness, module: OpenModule, nodes: dict) -> list[tuple[str, np.ndarray]]:
    """Titles and pictures: the seven ways after registration, two of them before it, and three
    drawings of the deformation."""
    from GlideRegScene import display
    from GlideRegScene.compare import deformation
    from GlideRegScene.compare.comparison import Comparison
    from GlideRegScene.compare.modes import Mode, Options

    transform = module.parameters.transform
    fixed, moving, warped = nodes["fixed"], nodes["moving"], module.parameters.warpedVolume
    view = SliceView(harness, "Green", size=CELL).show(fixed).fit()
    wide, high, depth = view.node.GetFieldOfView()
    view.node.SetFieldOfView(0.9 * wide, 0.9 * high, depth)
    bounds = np.zeros(6)
    fixed.GetRASBounds(bounds)
    view.jump(bounds.reshape(3, 2).mean(axis=1))
    comparison = Comparison(slicer.mrmlScene)
    options = Options(tileMm=40.0, rangeHu=400.0, split=0.45)

    def shot(second, mode: Mode, opacity: float | None = None) -> np.ndarray:
        comparison.start(fixed, second, mode, options)
        if opacity is not None:
            comparison.setOpacity(opacity)
        return view.render(None)

    found = [
        ("flicker: fixed …", shot(warped, Mode.FLICKER, 0.0)),
        ("… and warped, in turn", shot(warped, Mode.FLICKER, 1.0)),
        ("fade, rock", shot(warped, Mode.FADE, 0.5)),
        ("checkerboard", shot(warped, Mode.CHECKERBOARD)),
        ("split: the line moves", shot(warped, Mode.SPLIT)),
        ("red-cyan, before", shot(moving, Mode.RED_CYAN)),
        ("red-cyan, after", shot(warped, Mode.RED_CYAN)),
        ("difference, before", shot(moving, Mode.DIFFERENCE)),
        ("difference, after", shot(warped, Mode.DIFFERENCE)),
    ]
    comparison.stop()
    display.showLayers(slicer.mrmlScene, fixed, None, 0.0)
    suggestion = deformation.suggested(transform)
    for mode in ("grid", "arrows", "contours"):
        display.showDeformation(transform, mode, True, False)
        spacing = 15.0 if mode == "grid" else suggestion.spacingMm
        deformation.draw(transform, replace(suggestion, spacingMm=spacing))
        found.append((f"deformation: {mode}", view.render(None)))
    display.showDeformation(transform, "grid", False, False)
    return found


def sheet(pictures: list[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
    """Pictures with their titles, row after row, on black."""
    width, height = CELL
    rows = -(-len(pictures) // columns)
    image = Image.new("RGB", (columns * (width + 4) - 4, rows * (height + 26)), "black")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for k, (title, picture) in enumerate(pictures):
        left, top = (k % columns) * (width + 4), (k // columns) * (height + 26)
        draw.text((left + 6, top + 4), title, fill="white", font=font)
        image.paste(Image.fromarray(picture), (left, top + 24))
    return np.asarray(image)


def panel_picture(module: OpenModule, path: Path) -> np.ndarray:
    """The section alone, while the difference is shown."""
    for name in ("inputs", "outputs", "method", "result", "display"):
        getattr(module.ui, f"{name}Section").collapsed = True
    module.openSection("compareSection")
    module.click("compareDifferenceButton")
    module.parent.resize(PANEL, module.parent.sizeHint.height())
    module.processEvents()
    section = module.ui.compareSection
    top = section.mapTo(module.parent, section.rect.topLeft()).y()
    picture = QtWidgets.QWidget.grab(module.parent).copy(0, top - 4, PANEL, section.height + 8)
    assert picture.save(str(path))
    module.click("compareResetButton")
    return np.asarray(Image.open(path).convert("RGB"))


def compare_picture(into: Path) -> None:
    """The section at the left, the sheet at the right."""
    harness = fresh_scene()
    module, nodes = registered(harness)
    right = sheet(cells(harness, module, nodes), 6)
    panel = into / "compare-panel.png"
    left = panel_picture(module, panel)
    panel.unlink()
    height = max(left.shape[0], right.shape[0])
    image = Image.new("RGB", (left.shape[1] + 8 + right.shape[1], height), "white")
    image.paste(Image.fromarray(left), (0, 0))
    image.paste(Image.fromarray(right), (left.shape[1] + 8, 0))
    image.save(into / "compare.jpg", quality=80, optimize=True)
    module.close()
    harness.close()


if __name__ == "__main__":
    compare_picture(Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENSHOTS)
