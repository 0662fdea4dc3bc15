"""The section Nodules, by clicks: from Track to a table that is decided, saved and exported.

Widgets are stand-ins (see Testing/slicer_harness); scene, worker and numbers are real.
"""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from driving import OpenModule
from PySide6 import QtCore, QtTest

from GlideRegScene.nodules import markers, tables, views
from slicer_harness import slicer_parts
from slicer_harness.nodule_pair import (
    FRESH,
    GONE,
    GROWS,
    SHIFT,
    STAYS,
    NodulePair,
    make_nodule_pair,
    ras,
)
from slicer_harness.scene import fresh_scene


@pytest.fixture
def nodules(module: OpenModule) -> NodulePair:
    """The pair, chosen in the panel as after a registration."""
    pair = make_nodule_pair()
    module.ui.fixedVolumeSelector.setCurrentNode(pair.current)
    module.ui.movingVolumeSelector.setCurrentNode(pair.prior)
    module.parameters.transform = pair.transform
    module.openSection("nodulesSection")
    module.ui.priorNodulesSelector.setCurrentNode(pair.priorPoints)
    module.ui.currentNodulesSelector.setCurrentNode(pair.currentPoints)
    module.processEvents()
    return pair


@pytest.fixture(scope="module")
def savedPath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracked scene, saved once."""
    harness = fresh_scene()
    module = OpenModule()
    pair = make_nodule_pair()
    table = module.logic.track(pair.transform, pair.priorPoints, pair.currentPoints, days=180.0)
    module.parameters.fixedVolume, module.parameters.movingVolume = pair.current, pair.prior
    module.parameters.transform, module.parameters.noduleTable = pair.transform, table
    path = tmp_path_factory.mktemp("nodules") / "tracked.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    module.close()
    harness.close()
    return path


@pytest.fixture
def tracked(savedPath: Path, module: OpenModule) -> OpenModule:
    """The module with the saved tracking."""
    assert slicer.mrmlScene.ReadFromMRB(str(savedPath))
    module.openSection("nodulesSection")
    return module


def cells(module: OpenModule, row: int) -> list[str]:
    widget = module.ui.nodulesTable
    return [widget.item(row, column).text() for column in range(widget.columnCount)]


def row_of(module: OpenModule, name: str) -> int:
    names = [cells(module, row)[0] for row in range(module.ui.nodulesTable.rowCount)]
    return names.index(name)


def choose(module: OpenModule, name: str) -> None:
    """A click on a row of the table."""
    widget = module.ui.nodulesTable
    place = widget.visualItemRect(widget.item(row_of(module, name), 0)).center()
    QtTest.QTest.mouseClick(widget.viewport(), QtCore.Qt.MouseButton.LeftButton, pos=place)
    module.processEvents()


def slice_center(name: str) -> list[float]:
    node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
    return [node.GetSliceToRAS().GetElement(k, 3) for k in range(3)]


def tracked_row(module: OpenModule, name: str) -> Any:
    return next(r for r in tables.trackingOf(module.parameters.noduleTable) if r.name == name)


def drag(module: OpenModule, name: str, position: list[float]) -> None:
    """Drags the marker of a nodule and drops it."""
    node, k = markers.markerOf(module.parameters.noduleTable, tracked_row(module, name).identifier)
    assert not node.GetNthControlPointLocked(k), "the marker cannot be moved"
    node.SetNthControlPointPositionWorld(k, *position)
    node.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)
    module.processEvents()


def test_from_a_click_to_a_decided_table_that_lasts(
    module: OpenModule, nodules: NodulePair, tmp_path: Path
) -> None:
    ui = module.ui
    slicer.mrmlScene.AddNode(slicer.vtkMRMLLayoutNode())
    ui.priorDateEdit.text, ui.currentDateEdit.text = "2024-01-31", "2024-07-29"
    module.processEvents()
    assert ui.trackButton.enabled, ui.trackButton.toolTip
    assert not ui.nodulesContents.visible

    # One click; progress is seen, the panel is alive, and nothing else can be started.
    lines, values = set(), []
    module.click("trackButton")
    assert not ui.applyButton.enabled and "Nodules" in ui.applyButton.toolTip
    assert not ui.progressBar.visible, "that is the one of the registration"

    def over() -> bool:
        lines.add(ui.noduleStatusLabel.text.split(" ")[0])
        values.append(ui.noduleProgressBar.value)
        return module.logic.running is None

    module.waitUntil(over, 60)
    module.processEvents()
    assert "Tracking" in lines and values == sorted(values)
    assert ui.noduleStatusLabel.text == "Tracked: 2 matched, 1 new, 1 resolved."
    assert not ui.noduleProgressBar.visible and not ui.cancelTrackButton.visible

    # The table is filled, and says that it is for research, and how many days it counts with.
    assert ui.noduleDaysLabel.text == "Scans 180 days apart"
    assert ui.nodulesContents.visible
    assert "Research use only" in ui.noduleNoticeLabel.text
    grown = cells(module, row_of(module, "grows"))
    assert grown[1] == "matched" and float(grown[3]) < 1
    assert [float(v) for v in grown[5].split(" → ")] == pytest.approx([8.0, 10.0], abs=0.6)
    assert float(grown[7].rstrip(" %")) == pytest.approx(95.3, abs=8)
    assert float(grown[8].rstrip(" d")) == pytest.approx(186, rel=0.1)

    # A click jumps, in both scans at once.
    module.click("compareButton")
    assert views.comparisonShown(slicer.mrmlScene) and ui.compareButton.checked
    choose(module, "grows")
    assert slice_center("GlideRegCurrentAxial") == pytest.approx(ras(GROWS), abs=1e-2)
    assert slice_center("GlideRegPriorAxial") == pytest.approx(ras(np.add(GROWS, SHIFT)), abs=1e-2)
    assert "HU" in ui.noduleDetail.text and "±25 %" in ui.noduleDetail.text

    # Confirmed, corrected, rejected.
    module.click("confirmNoduleButton")
    assert cells(module, row_of(module, "grows"))[2] == "✓"
    choose(module, "gone")
    module.click("correctNoduleButton")
    assert "Drag the marker" in ui.noduleDetail.text
    drag(module, "gone", ras(np.add(FRESH, 0.6)))
    assert cells(module, row_of(module, "gone"))[1:3] == ["matched", "✎"]
    assert ui.correctNoduleButton.checked and "Drag" not in ui.noduleDetail.text
    choose(module, "stays")
    module.click("rejectNoduleButton")
    expected = tables.trackingOf(module.parameters.noduleTable)
    decided = {row.name: row.decision for row in expected}
    assert decided == {"stays": "rejected", "grows": "confirmed", "gone": "corrected"}

    # Saved, loaded in another session, still there; exported.
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "nodules.mrb"))
    module.close()
    again = fresh_scene()
    assert again.scene.ReadFromMRB(str(tmp_path / "nodules.mrb"))
    reopened = OpenModule()
    reopened.openSection("nodulesSection")
    assert tables.trackingOf(reopened.parameters.noduleTable) == expected
    assert cells(reopened, row_of(reopened, "gone"))[2] == "✎"
    assert reopened.ui.priorNodulesSelector.currentNode().GetName() == "Prior nodules"
    # The days stay, the dates do not.
    assert reopened.ui.daysLabel.text == "180 days apart" and not reopened.ui.priorDateEdit.text
    assert "2024" not in str(reopened.parameters.parameterNode)
    slicer_parts.dialogs.answers["QFileDialog"] = str(tmp_path / "nodules")
    reopened.click("exportNodulesButton")
    with (tmp_path / "nodules.csv").open(encoding="utf-8") as stream:
        exported = list(csv.DictReader(stream))
    assert [row["decision"] for row in exported] == [row.decision for row in expected]
    reopened.close()
    again.close()


def test_a_decision_is_taken_back_by_the_same_button(tracked: OpenModule) -> None:
    choose(tracked, "stays")
    tracked.click("rejectNoduleButton")
    assert tracked.ui.rejectNoduleButton.checked
    tracked.click("confirmNoduleButton")
    assert tracked.ui.confirmNoduleButton.checked and not tracked.ui.rejectNoduleButton.checked
    tracked.click("confirmNoduleButton")
    assert tracked_row(tracked, "stays").decision == "open"
    assert not tracked.ui.confirmNoduleButton.checked


def test_a_marker_that_is_dropped_outside_goes_back(tracked: OpenModule) -> None:
    choose(tracked, "gone")
    before = tracked_row(tracked, "gone")
    tracked.click("correctNoduleButton")
    drag(tracked, "gone", [900.0, 0.0, 0.0])
    assert "outside" in slicer_parts.dialogs.shown[-1][1]
    assert tracked_row(tracked, "gone") == before
    node, k = markers.markerOf(tracked.parameters.noduleTable, before.identifier)
    place = list(node.GetNthControlPointPositionWorld(k))
    assert place == pytest.approx(ras(before.fixed_position), abs=1e-3)
    assert node.GetNthControlPointLocked(k)


def test_correct_pressed_again_takes_the_place_as_it_is(tracked: OpenModule) -> None:
    choose(tracked, "gone")
    tracked.click("correctNoduleButton")
    tracked.click("correctNoduleButton")
    assert tracked_row(tracked, "gone").decision == "corrected"
    tracked.click("confirmNoduleButton")
    assert tracked_row(tracked, "gone").decision == "corrected", "that says more"
    tracked.click("correctNoduleButton")
    assert tracked_row(tracked, "gone").decision == "open"
    assert tracked_row(tracked, "gone").state == "resolved"


def test_another_row_ends_a_correction(tracked: OpenModule) -> None:
    choose(tracked, "gone")
    tracked.click("correctNoduleButton")
    choose(tracked, "stays")
    assert tracked_row(tracked, "gone").decision == "open"
    node, k = markers.markerOf(
        tracked.parameters.noduleTable, tracked_row(tracked, "gone").identifier
    )
    assert node.GetNthControlPointLocked(k)


def test_a_new_nodule_is_placed_by_a_click(tracked: OpenModule) -> None:
    tracked.click("addNoduleButton")
    assert "Click the new nodule" in tracked.ui.noduleDetail.text
    node = slicer.util.getNode("New nodule")
    node.AddControlPoint(vtk.vtkVector3d(*ras(GONE)))
    tracked.processEvents()
    row = tracked_row(tracked, "New 1")
    assert (row.state, row.decision) == ("new", "confirmed")
    assert slicer.mrmlScene.GetFirstNodeByName("New nodule") is None
    assert cells(tracked, tracked.ui.nodulesTable.currentRow())[0] == "New 1"
    assert not tracked.ui.addNoduleButton.checked


def test_placing_can_be_given_up(tracked: OpenModule) -> None:
    markups = slicer.modules.markups.logic()
    mine = slicer.util.getNode("Current nodules")
    markups.SetActiveList(mine)
    tracked.click("addNoduleButton")
    tracked.click("addNoduleButton")
    assert slicer.mrmlScene.GetFirstNodeByName("New nodule") is None
    assert tracked.ui.nodulesTable.rowCount == 4
    assert markups.GetActiveListID() == mine.GetID(), "the user's own list is active again"


def test_the_current_nodule_of_a_rejected_pair_becomes_a_new_one(tracked: OpenModule) -> None:
    choose(tracked, "stays")
    tracked.click("rejectNoduleButton")
    tracked.click("addNoduleButton")
    row = tracked_row(tracked, "stays (new)")
    assert list(row.fixed_center) == pytest.approx(STAYS, abs=1e-3)
    assert row.state == "new"
    choose(tracked, "stays")
    tracked.click("addNoduleButton")
    assert tracked.ui.nodulesTable.rowCount == 5, "it is added once"
    assert cells(tracked, tracked.ui.nodulesTable.currentRow())[0] == "stays (new)"
    choose(tracked, "stays")
    tracked.click("rejectNoduleButton")
    assert "belongs to 'stays (new)' now" in slicer_parts.dialogs.shown[-1][1]
    assert tracked.ui.rejectNoduleButton.checked


def test_the_hint_on_a_doubling_time_says_its_sign_and_its_reserve(tracked: OpenModule) -> None:
    hints = {}
    for name in ("stays", "grows"):
        item = tracked.ui.nodulesTable.item(row_of(tracked, name), 8)
        hints[name] = item.toolTip()
        assert "negative when the nodule shrinks" in hints[name]
    assert "With reserve: a volume change of" in hints["stays"]
    assert "reserve" not in hints["grows"]


def test_a_pair_is_taken_apart_and_back(tracked: OpenModule) -> None:
    choose(tracked, "gone")
    assert not tracked.ui.separateNoduleButton.enabled, "there is no pair"
    choose(tracked, "grows")
    tracked.click("separateNoduleButton")
    assert cells(tracked, row_of(tracked, "grows"))[1:3] == ["resolved", "✎"]
    assert cells(tracked, row_of(tracked, "grows (current)"))[1:3] == ["new", "✓"]
    assert tracked.ui.separateNoduleButton.checked and not tracked.ui.correctNoduleButton.checked
    tracked.click("separateNoduleButton")
    assert cells(tracked, row_of(tracked, "grows"))[1:3] == ["matched", ""]
    assert tracked.ui.nodulesTable.rowCount == 4


def test_a_correction_survives_a_rejection_that_is_taken_back(tracked: OpenModule) -> None:
    choose(tracked, "gone")
    tracked.click("correctNoduleButton")
    drag(tracked, "gone", ras(FRESH))
    corrected = tracked_row(tracked, "gone")
    tracked.click("rejectNoduleButton")
    tracked.click("rejectNoduleButton")
    assert tracked_row(tracked, "gone") == corrected


def test_track_says_what_is_missing(module: OpenModule, nodules: NodulePair) -> None:
    ui = module.ui
    for change, said in (
        (lambda: ui.priorNodulesSelector.setCurrentNode(None), "nodules of the prior scan"),
        (lambda: setattr(module.parameters, "transform", None), "Register the volumes first"),
        (lambda: setattr(ui.priorDateEdit, "text", "yesterday"), "Give the dates of both"),
    ):
        change()
        module.processEvents()
        assert not ui.trackButton.enabled
        assert said in ui.trackButton.toolTip
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "empty")
    ui.priorDateEdit.text = ""
    module.parameters.transform = nodules.transform
    ui.priorNodulesSelector.setCurrentNode(points)
    assert "no placed point" in ui.trackButton.toolTip
    points.AddControlPoint(vtk.vtkVector3d(*ras(np.add(STAYS, SHIFT))))
    module.processEvents()
    assert ui.trackButton.enabled


def test_dates_of_one_patient_give_no_doubling_times_to_the_next(
    module: OpenModule, nodules: NodulePair
) -> None:
    ui, other = module.ui, make_nodule_pair()
    ui.priorDateEdit.text, ui.currentDateEdit.text = "2024-01-31", "2024-08-18"
    assert ui.daysLabel.text == "200 days apart"
    assert module.logic.trackRequestFrom(module.parameters).days == 200
    ui.movingVolumeSelector.setCurrentNode(other.prior)
    module.processEvents()
    assert (ui.priorDateEdit.text, ui.currentDateEdit.text, ui.daysLabel.text) == ("", "", "")
    assert module.logic.trackRequestFrom(module.parameters).days is None
    ui.movingVolumeSelector.setCurrentNode(nodules.prior)
    ui.priorDateEdit.text, ui.currentDateEdit.text = "2024-01-31", "2024-08-18"
    module.parameters.priorScan = type(module.parameters.priorScan).FIXED
    module.processEvents()
    assert ui.daysLabel.text == "" and not ui.priorDateEdit.text, "other roles"


def test_dates_are_proposed_where_volumes_came_from_dicom(
    module: OpenModule, nodules: NodulePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"1.1": "20240131", "1.2": "20240818"}
    database = SimpleNamespace(isOpen=True, instanceValue=lambda uid, tag: found.get(uid, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    ui, later = module.ui, make_nodule_pair()
    later.prior.SetAttribute("DICOM.instanceUIDs", "1.1 1.9")
    later.current.SetAttribute("DICOM.instanceUIDs", "1.2")
    ui.movingVolumeSelector.setCurrentNode(later.prior)
    module.processEvents()
    assert ui.daysLabel.text == "", "one date is not enough"
    ui.fixedVolumeSelector.setCurrentNode(later.current)
    module.processEvents()
    assert (ui.priorDateEdit.text, ui.currentDateEdit.text) == ("2024-01-31", "2024-08-18")
    assert module.logic.trackRequestFrom(module.parameters).days == 200
    # What the user types counts, and stays while the scans do.
    ui.currentDateEdit.text = "2024-03-01"
    module.panel.refresh()
    assert ui.daysLabel.text == "30 days apart"
    ui.fixedVolumeSelector.setCurrentNode(later.prior)
    ui.movingVolumeSelector.setCurrentNode(later.current)
    module.processEvents()
    assert not ui.priorDateEdit.text and ui.daysLabel.text == "exchanged?"
    assert "does not date the prior scan before" in ui.daysLabel.toolTip


def test_cancel_ends_the_tracking_and_leaves_nothing(
    module: OpenModule, nodules: NodulePair
) -> None:
    for k in range(200):
        nodules.priorPoints.AddControlPoint(vtk.vtkVector3d(*ras(np.add(STAYS, SHIFT + k / 100))))
    before = slicer.mrmlScene.GetNumberOfNodes()
    module.click("trackButton")
    module.waitUntil(lambda: module.ui.noduleStatusLabel.text.startswith("Tracking"), 60)
    module.click("cancelTrackButton")
    assert module.waitUntil(lambda: module.logic.running is None, 10) < 2.5
    module.processEvents()
    assert module.ui.noduleStatusLabel.text == "Cancelled; nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert module.ui.trackButton.enabled and module.ui.applyButton.enabled


def test_a_failed_tracking_is_one_sentence(module: OpenModule, nodules: NodulePair) -> None:
    for k in range(nodules.priorPoints.GetNumberOfControlPoints()):
        nodules.priorPoints.SetNthControlPointPositionWorld(k, 900.0, 900.0, 900.0)
    module.click("trackButton")
    module.waitForTheRun()
    assert "outside of it" in module.ui.noduleStatusLabel.text
    assert slicer_parts.dialogs.shown[-1][0] == "errorDisplay"
    assert not module.ui.nodulesContents.visible


def test_a_table_of_somebody_else_is_no_table_of_nodules(tracked: OpenModule) -> None:
    ours = tracked.parameters.noduleTable
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Other")
    tracked.parameters.noduleTable = other
    assert not tracked.ui.nodulesContents.visible
    tracked.parameters.noduleTable = ours
    assert tracked.ui.nodulesContents.visible
    ours.SetAttribute(tables.ATTRIBUTE, "{")
    tracked.panel.refresh()
    assert "track the nodules again" in tracked.ui.noduleDetail.text
    slicer.mrmlScene.RemoveNode(ours)
    tracked.panel.refresh()
    assert not tracked.ui.nodulesContents.visible


def test_the_layout_of_before_comes_back(tracked: OpenModule) -> None:
    layout = slicer.mrmlScene.AddNode(slicer.vtkMRMLLayoutNode())
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    tracked.click("compareButton")
    assert views.comparisonShown(slicer.mrmlScene)
    tracked.click("compareButton")
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    assert not tracked.ui.compareButton.checked
