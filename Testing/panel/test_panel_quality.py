"""The section Quality, by clicks: from Assess to a table, the worst place, the map and the report.

Widgets are stand-ins (see Testing/slicer_harness); scene, worker and numbers are real.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from driving import OpenModule
from PySide6 import QtCore, QtTest

from GlideRegPanel import quality_rows
from GlideRegScene.quality import overlay, tables
from slicer_harness import slicer_parts
from slicer_harness.quality_pair import (
    SHIFT,
    QualityPair,
    folded_vectors,
    grid_node,
    make_quality_pair,
)
from slicer_harness.scene import fresh_scene


def choose_pair(module: OpenModule, pair: QualityPair) -> None:
    """As a user fills the section for a transform of other software."""
    module.ui.fixedVolumeSelector.setCurrentNode(pair.fixed)
    module.ui.movingVolumeSelector.setCurrentNode(pair.moving)
    module.openSection("qualitySection")
    module.ui.qualityTransformSelector.setCurrentNode(pair.transform)
    module.ui.qualityFixedLandmarksSelector.setCurrentNode(pair.fixedLandmarks)
    module.ui.qualityMovingLandmarksSelector.setCurrentNode(pair.movingLandmarks)
    module.ui.qualityFixedStructuresSelector.setCurrentNode(pair.fixedStructures)
    module.ui.qualityMovingStructuresSelector.setCurrentNode(pair.movingStructures)
    module.processEvents()


@pytest.fixture
def pair_(module: OpenModule) -> QualityPair:
    pair = make_quality_pair()
    choose_pair(module, pair)
    return pair


@pytest.fixture(scope="module")
def savedPath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assessed scene with a fold in the transform, saved once."""
    harness = fresh_scene()
    module = OpenModule()
    pair = make_quality_pair()
    pair.transform = grid_node(folded_vectors(), "Folded", cubic=True)
    choose_pair(module, pair)
    module.logic.assessUsingParameterNode(module.parameters)
    path = tmp_path_factory.mktemp("quality") / "assessed.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    module.close()
    harness.close()
    return path


@pytest.fixture
def assessed(savedPath: Path, module: OpenModule) -> OpenModule:
    """The module with the saved assessment."""
    assert slicer.mrmlScene.ReadFromMRB(str(savedPath))
    module.openSection("qualitySection")
    return module


def cells(widget: Any, row: int) -> list[str]:
    return [widget.item(row, column).text() for column in range(widget.columnCount)]


def rows(widget: Any) -> list[list[str]]:
    return [cells(widget, row) for row in range(widget.rowCount)]


def choose(module: OpenModule, widget: Any, row: int) -> None:
    """A click on a row of a table."""
    place = widget.visualItemRect(widget.item(row, 0)).center()
    QtTest.QTest.mouseClick(widget.viewport(), QtCore.Qt.MouseButton.LeftButton, pos=place)
    module.processEvents()


def slice_center() -> np.ndarray:
    """Where the axial view looks, LPS mm."""
    node = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    return np.array([node.GetSliceToRAS().GetElement(k, 3) for k in range(3)]) * (-1, -1, 1)


def tick(module: OpenModule, name: str, ticked: bool) -> None:
    """Sets the tick of a structure."""
    for item in module.ui.qualityStructuresList.findItems(
        name, QtCore.Qt.MatchFlag.MatchStartsWith
    ):
        state = QtCore.Qt.CheckState
        item.setCheckState(state.Checked if ticked else state.Unchecked)
    module.processEvents()


def test_from_a_click_to_verdict_table_jump_and_report(
    module: OpenModule, pair_: QualityPair, tmp_path: Path
) -> None:
    ui = module.ui
    assert ui.assessButton.enabled, ui.assessButton.toolTip
    assert not ui.qualityContents.visible

    # One click; progress is seen, the panel is alive, and nothing else can be started.
    lines, values = set(), []
    module.click("assessButton")
    assert not ui.applyButton.enabled and not ui.trackButton.enabled
    assert ui.qualityProgressBar.visible and not ui.progressBar.visible

    def over() -> bool:
        lines.add(ui.qualityStatusLabel.text.split(" · ")[0])
        values.append(ui.qualityProgressBar.value)
        return module.logic.running is None

    module.waitUntil(over, 60)
    module.processEvents()
    assert values == sorted(values) and len(lines) > 2
    assert ui.qualityStatusLabel.text == "Assessed: not compliant."
    assert not ui.qualityProgressBar.visible and ui.assessButton.enabled

    # The verdict names the worst structure, and every verdict has its color.
    assert "Worst structure: Heart" in ui.qualityVerdictLabel.text
    assert quality_rows.COLORS["not compliant"] in ui.qualityVerdictLabel.styleSheet
    assert "Research use only" in ui.qualityNoticeLabel.text
    found = rows(ui.qualityMeasuresTable)
    assert found[0][2] == "Heart" and found[0][0] == "not compliant"
    for row, texts in enumerate(found):
        color = ui.qualityMeasuresTable.item(row, 0).background().color().name()
        assert color == quality_rows.COLORS[texts[0]]
    tre = next(texts for texts in found if texts[1] == "TRE, mean")
    assert tre[3] == "14.97 → 0 mm" and tre[0] == "compliant"

    # How far each structure moved, end to end.
    moved = {texts[0]: texts[1:] for texts in rows(ui.motionTable)}
    assert moved["Tumor"] == ["4.0 L", "8.0 A", "12.0 S", "15.0", "4.0 L 8.0 A 12.0 S"]
    assert moved["Heart"][4] == "4.0 L 8.0 A 20.0 S", "its contour lies 8 mm off"

    # A click goes to where it is worst.
    choose(module, ui.qualityMeasuresTable, 0)
    assessment = tables.assessmentOf(module.parameters.qualityTable)
    place = tables.place(assessment, tables.ranked(assessment)[0])
    np.testing.assert_allclose(slice_center(), place, atol=0.01)
    assert "Heart" in ui.qualityDetail.text

    # The report has the numbers of the table, and the browser shows it.
    numbers = [m.value for m in tables.assessmentOf(module.parameters.qualityTable).measures]
    pair_.fixed.SetName("Doe^Jane")
    slicer_parts.dialogs.answers["QFileDialog"] = str(tmp_path / "report")
    module.click("exportQualityButton")
    module.waitForTheRun(90)
    assert ("openUrl", (tmp_path / "report" / "assessment.html").as_uri()) in (
        slicer_parts.dialogs.shown
    )
    written = json.loads((tmp_path / "report" / "assessment.json").read_text(encoding="utf-8"))
    assert written["worst_structure"] == "Heart"
    assert [m["value"] for m in written["measures"]] == numbers
    kept = tables.assessmentOf(module.parameters.qualityTable).measures
    assert [m.value for m in kept] == numbers
    page = (tmp_path / "report" / "assessment.html").read_text(encoding="utf-8")
    assert "Heart" in page and "Jane" not in page
    assert "report was written" in ui.qualityStatusLabel.text
    assert any("jinja2" in str(call) for call in slicer_parts.installer.calls)


def test_a_saved_assessment_is_shown_again(assessed: OpenModule) -> None:
    ui = assessed.ui
    assert ui.qualityContents.visible
    folding = next(t for t in rows(ui.qualityMeasuresTable) if t[1:3] == ["Folded voxels", "Body"])
    assert folding[0] == "not compliant"
    graded = ui.qualityMeasuresTable.rowCount
    assessed.click("allMeasuresCheck")
    verdicts = {texts[0] for texts in rows(ui.qualityMeasuresTable)}
    assert ui.qualityMeasuresTable.rowCount > graded and "information" in verdicts
    spots = tables.assessmentOf(assessed.parameters.qualityTable).spots
    for k in (0, 1):
        assessed.click("nextPlaceButton")
        np.testing.assert_allclose(slice_center(), spots[k].place, atol=0.01)
    assert f"2 of {len(spots)}" in ui.nextPlaceButton.text
    choose(assessed, ui.motionTable, 0)
    assert np.linalg.norm(slice_center() - spots[1].place) > 1


def test_the_jacobian_map_is_toggled_and_the_views_come_back(assessed: OpenModule) -> None:
    table = assessed.parameters.qualityTable
    composite = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    composite.SetBackgroundVolumeID(slicer.util.getNode("Repeat CT").GetID())
    assert overlay.mapOf(table) is None
    assessed.click("qualityJacobianButton")  # there is none yet: it is computed
    assessed.waitForTheRun(60)
    assert overlay.isShown(table) and assessed.ui.qualityJacobianButton.checked
    assert overlay.legendOf(overlay.mapOf(table)).GetVisibility()
    assessed.click("qualityJacobianButton")
    assert not overlay.isShown(table) and not assessed.ui.qualityJacobianButton.checked
    assert composite.GetBackgroundVolumeID() == slicer.util.getNode("Repeat CT").GetID()
    assert not composite.GetForegroundVolumeID()


def test_an_opened_section_shows_no_table_before_there_is_one(module: OpenModule) -> None:
    module.openSection("qualitySection")
    assert module.ui.assessButton.visible
    assert not module.ui.qualityContents.visible
    assert not module.ui.qualityProgressBar.visible and not module.ui.cancelAssessButton.visible


def test_what_is_missing_is_on_the_button(module: OpenModule, pair_: QualityPair) -> None:
    ui = module.ui
    ui.qualityFixedStructuresSelector.setCurrentNode(None)
    module.processEvents()
    assert not ui.assessButton.enabled and "fixed scan too" in ui.assessButton.toolTip
    ui.qualityMovingStructuresSelector.setCurrentNode(None)
    module.processEvents()
    assert ui.assessButton.enabled, "without structures it is about the body"
    pair_.moving.SetAndObserveTransformNodeID(pair_.transform.GetID())
    module.processEvents()
    assert "under the transform" in ui.assessButton.toolTip
    pair_.moving.SetAndObserveTransformNodeID(None)
    ui.qualityTransformSelector.setCurrentNode(None)
    module.processEvents()
    assert "choose a transform" in ui.assessButton.toolTip


def test_structures_are_ticked_and_follow_the_segmentation(
    module: OpenModule, pair_: QualityPair
) -> None:
    def chosen() -> list[str]:
        return module.logic.assessRequestFrom(module.parameters).chosen

    assert chosen() == ["Lung", "Tumor", "Heart"]
    tick(module, "Lung", False)
    assert chosen() == ["Tumor", "Heart"]
    pair_.fixedStructures.GetSegmentation().AddEmptySegment("Cord", "Cord")
    module.processEvents()
    texts = [module.ui.qualityStructuresList.item(k).text() for k in range(4)]
    assert texts[3] == "Cord (in the fixed scan only)"
    assert chosen() == ["Tumor", "Heart", "Cord"]
    for name in chosen():
        tick(module, name, False)
    assert "Tick at least one" in module.ui.assessButton.toolTip
    tick(module, "Lung", True)
    assert chosen() == ["Lung"]


def test_a_profile_of_ones_own_is_chosen_from_a_file(
    module: OpenModule, pair_: QualityPair, tmp_path: Path
) -> None:
    module.pick("qualityProfileCombo", "SRS, 1 mm")
    assert module.parameters.qualityProfile == "srs-1mm"
    path = tmp_path / "ours.json"
    path.write_text("{}", encoding="utf-8")
    slicer_parts.dialogs.answers["QFileDialog"] = str(path)
    module.click("qualityProfileButton")
    assert "A profile must be" in slicer_parts.dialogs.shown[-1][1]
    assert module.parameters.qualityProfile == "srs-1mm"
    criteria = [{"measure": "dice", "compliant": 0.5}]
    ours = {"schema": "glidereg-profile-1", "name": "Ours", "description": "x", "source": "us"}
    path.write_text(json.dumps({**ours, "criteria": criteria}), encoding="utf-8")
    module.click("qualityProfileButton")
    module.processEvents()
    assert module.parameters.qualityProfile == str(path)
    assert module.ui.qualityProfileCombo.currentText == "Ours"


def test_cancel_ends_it_within_two_seconds_and_leaves_nothing(
    module: OpenModule, pair_: QualityPair
) -> None:
    before = slicer.mrmlScene.GetNumberOfNodes()
    module.click("assessButton")
    module.waitUntil(lambda: module.ui.qualityProgressBar.value > 0, 60)
    module.click("cancelAssessButton")
    assert module.waitUntil(lambda: module.logic.running is None, 10) < 2.5
    module.processEvents()
    assert module.ui.qualityStatusLabel.text == "Cancelled; nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert module.ui.assessButton.enabled


def test_a_damaged_table_is_said(assessed: OpenModule) -> None:
    assessed.parameters.qualityTable.SetAttribute(tables.ATTRIBUTE, "{}")
    assessed.processEvents()
    assert "damaged" in assessed.ui.qualityVerdictLabel.text
    assert assessed.ui.qualityMeasuresTable.rowCount == 0
    assert not assessed.ui.exportQualityButton.enabled


def test_directions_are_letters_of_the_patient() -> None:
    assert quality_rows.directions(SHIFT.tolist()) == ["4.0 L", "8.0 A", "12.0 S"]
    assert quality_rows.directions([-1.0, 2.0, -0.01]) == ["1.0 R", "2.0 P", "0.0"]


def test_closing_the_scene_empties_the_section(assessed: OpenModule) -> None:
    assert assessed.ui.qualityContents.visible
    slicer.mrmlScene.Clear(0)
    assessed.processEvents()
    assert not assessed.ui.qualityContents.visible
