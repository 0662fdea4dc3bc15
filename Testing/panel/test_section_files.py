"""Sections from files of their own: in their place, with the scene, and no name twice."""

from __future__ import annotations

from xml.etree import ElementTree

import slicer
from driving import OpenModule

from GlideRegPanel.section_files import FILES


def _folder() -> object:
    from pathlib import Path

    return Path(slicer.modules.glidereg.path).parent / "Resources" / "UI"


def test_the_sections_stand_between_nodules_and_cache_in_their_order(module: OpenModule) -> None:
    rows = module.ui.nodulesSection.parent().layout()
    names = [rows.itemAt(k).widget() for k in range(rows.count())]
    names = [widget.objectName if widget is not None else "" for widget in names]
    roots = [ElementTree.parse(_folder() / name).getroot().find("widget") for name in FILES]
    start = names.index("nodulesSection") + 1
    assert names[start : start + len(FILES)] == [root.get("name") for root in roots]
    assert names[start + len(FILES)] == "cacheSection"
    assert all(root.get("class") == "ctkCollapsibleButton" for root in roots)


def test_selectors_in_the_sections_have_the_scene(module: OpenModule) -> None:
    assert module.ui.qualityTransformSelector.mrmlScene() is slicer.mrmlScene


def test_no_widget_has_the_name_of_another(module: OpenModule) -> None:
    names = [
        child.get("name")
        for name in ("GlideReg.ui", *FILES)
        for kind in ("widget", "layout", "spacer")
        for child in ElementTree.parse(_folder() / name).iter(kind)
    ]
    assert sorted(names) == sorted(set(names))
