"""Makes Resources/Screenshots/panel.png: ``python Testing/pictures/panel.py``.

The panel after a run of the real follow-up pair. Qt draws it with the stand-ins of the tests: fonts
and frames differ from the desktop's.
"""

from __future__ import annotations

import sys
from pathlib import Path

_TESTING = Path(__file__).resolve().parents[1]
for folder in (_TESTING.parent / "GlideReg", _TESTING / "pictures", _TESTING / "panel", _TESTING):
    sys.path.insert(0, str(folder))

import slicer_harness  # noqa: E402

slicer_harness.install()

from driving import OpenModule  # noqa: E402
from PySide6 import QtWidgets  # noqa: E402
from real_pair import load_pair  # noqa: E402

from slicer_harness.scene import fresh_scene  # noqa: E402

SCREENSHOT = _TESTING.parent / "Resources" / "Screenshots" / "panel.png"
WIDTH = 480


def panel_picture(path: Path) -> None:
    """Registers the real pair by a click, shows the deformation, and grabs the panel."""
    harness = fresh_scene()
    nodes = load_pair()
    module = OpenModule()
    for role, name in (
        ("fixedVolume", "fixed"),
        ("movingVolume", "moving"),
        ("fixedLandmarks", "fixedLandmarks"),
        ("movingLandmarks", "movingLandmarks"),
    ):
        getattr(module.ui, f"{role}Selector").setCurrentNode(nodes[name])
    module.click("fastButton")
    module.parameters.encoder = "none"
    module.openSection("maskingSection")
    module.click("applyButton")
    module.waitForTheRun(240)
    module.click("deformation2DCheck")
    module.processEvents()
    module.parent.resize(WIDTH, module.parent.sizeHint.height())
    module.processEvents()
    path.parent.mkdir(parents=True, exist_ok=True)
    last = module.ui.cacheSection
    bottom = last.mapTo(module.parent, last.rect.bottomLeft()).y() + 12
    picture = QtWidgets.QWidget.grab(module.parent).copy(0, 0, WIDTH, bottom)
    assert picture.save(str(path))
    module.close()
    harness.close()


if __name__ == "__main__":
    panel_picture(SCREENSHOT)
