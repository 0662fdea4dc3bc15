"""Makes Resources/Screenshots/slices.png and view-3d.png: ``python Testing/pictures/views.py``.

Drawn by Slicer's own displayable managers, off screen.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slicer_harness.views import SliceView, ThreeDView, montage, pin_rendering, save_png

pin_rendering()

import slicer_harness  # noqa: E402

slicer_harness.install(qt=False)

import numpy as np  # noqa: E402
import slicer  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from slicer_harness.scene import SceneHarness, fresh_scene  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))
from real_pair import load_pair  # noqa: E402

SCREENSHOTS = Path(__file__).resolve().parents[2] / "Resources" / "Screenshots"


def register() -> tuple[SceneHarness, object, dict]:
    """The pair, registered with the preset fast and local features: seconds, no weights."""
    from GlideReg import GlideRegLogic

    harness = fresh_scene()
    nodes = load_pair()
    transform = GlideRegLogic().register(
        nodes["fixed"],
        nodes["moving"],
        preset="fast",
        settings={"features": {"encoder": "none"}},
        fixedLandmarks=nodes["fixedLandmarks"],
        movingLandmarks=nodes["movingLandmarks"],
    )
    return harness, transform, nodes


def slices_picture(harness: SceneHarness, transform, nodes: dict, path: Path) -> None:
    """Axial and coronal: before, after, deformation grid, Jacobian."""
    from GlideRegScene import display

    bounds = np.zeros(6)
    nodes["fixed"].GetRASBounds(bounds)
    center = bounds.reshape(3, 2).mean(axis=1)
    rows = []
    for name in ("Red", "Green"):
        view = SliceView(harness, name, size=(300, 420 if name == "Green" else 300))
        view.show(nodes["fixed"]).fit()
        view.jump(center)
        display.showResult(transform, before=True)
        row = [view.render(None)]
        display.showResult(transform)
        row.append(view.render(None))
        display.showDeformation(transform, "grid", True, False)
        row.append(view.render(None))
        display.showDeformation(transform, "grid", False, False)
        display.showJacobian(transform, True)
        row.append(view.render(None))
        display.showJacobian(transform, False)
        rows.append(np.concatenate(row, axis=1))
    titles = ("before", "after", "deformation", "Jacobian: blue shrinks, red grows")
    save_png(np.concatenate([_titles(titles, 300), *rows]), path)


def three_d_picture(harness: SceneHarness, transform, nodes: dict, path: Path) -> None:
    """Before and after: the grid as a sheet, fixed landmarks green, moving ones orange."""
    from GlideRegScene import display

    for name, color in (("fixedLandmarks", (0.1, 0.8, 0.5)), ("movingLandmarks", (0.9, 0.5, 0.1))):
        shown = nodes[name].GetDisplayNode()
        shown.SetVisibility(True)
        shown.SetSelectedColor(*color)
        shown.SetPointLabelsVisibility(False)
        shown.SetUseGlyphScale(False)
        shown.SetGlyphSize(5.0)
    display.showDeformation(transform, "grid", False, True)
    axial = SliceView(harness, "Red", size=(300, 300)).fit()
    axial.node.SetSliceVisible(True)
    view = ThreeDView(harness, size=(1100, 900)).look_from("anterior")
    pictures = []
    for before in (True, False):
        display.showResult(transform, before=before)
        under = None if before else transform.GetID()
        nodes["movingLandmarks"].SetAndObserveTransformNodeID(under)
        axial.render(None)
        pictures.append(view.turn(35 if before else 0, 20 if before else 0).render(None))
    save_png(montage([picture[190:840, 290:800] for picture in pictures], 2), path)


def _titles(texts: tuple[str, ...], width: int) -> np.ndarray:
    strip = Image.new("RGB", (width * len(texts), 24), "black")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(14)
    for k, text in enumerate(texts):
        draw.text((width * k + 8, 4), text, fill="white", font=font)
    return np.asarray(strip)


if __name__ == "__main__":
    result = register()
    slices_picture(*result, SCREENSHOTS / "slices.png")
    three_d_picture(*result, SCREENSHOTS / "view-3d.png")
    slicer.mrmlScene.Clear(1)
