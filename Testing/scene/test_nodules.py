"""Nodules in the scene: tracked by the real worker, drawn, decided, saved, and tracked again."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from known_fields import linear_node

from GlideReg import GlideRegLogic
from GlideRegLib.errors import GlideRegError, InputError
from GlideRegLib.tracking.records import Tracking
from GlideRegRun import folders
from GlideRegRun.tracking import TrackingRun
from GlideRegScene.nodules import dates, decisions, markers, tables, views
from GlideRegScene.nodules.dates import daysBetween
from GlideRegScene.nodules.request import TrackRequest, collectNodules
from slicer_harness.nodule_pair import (
    FRESH,
    GROWS,
    SHIFT,
    STAYS,
    NodulePair,
    make_nodule_pair,
    point_list,
    ras,
)
from slicer_harness.scene import SceneHarness, fresh_scene
from slicer_harness.views import SliceView


@pytest.fixture(autouse=True)
def temporary(scene: SceneHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slicer's temporary folder, empty, to see what a run leaves there."""
    folder = tmp_path / "slicer-temporary"
    folder.mkdir()
    monkeypatch.setattr(folders, "temporaryFolder", lambda: str(folder))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run, saved as a scene: it is made once."""
    harness = fresh_scene()
    pair = make_nodule_pair()
    table = track(pair)
    table.SetName("tracked")
    path = tmp_path_factory.mktemp("nodules") / "tracked.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    harness.close()
    return path


@pytest.fixture
def table(scene: SceneHarness, saved: Path) -> Iterator[object]:
    """The table of the run, from the saved scene."""
    assert slicer.mrmlScene.ReadFromMRB(str(saved))
    return slicer.util.getNode("tracked")


def track(pair: NodulePair, **options):
    """The nodules of the pair by the logic, through the worker."""
    chosen = {"currentNodules": pair.currentPoints, "days": 180.0, **options}
    return GlideRegLogic().track(pair.transform, pair.priorPoints, **chosen)


def rows_of(table) -> Tracking:
    return tables.trackingOf(table)


def named(table, name: str):
    return next(row for row in rows_of(table) if row.name == name)


def node_ids() -> set[str]:
    return {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}


def cells_of(table, row: int) -> dict[str, str]:
    count = table.GetNumberOfColumns()
    return {table.GetColumnName(k): table.GetCellText(row, k) for k in range(count)}


# --- a run ----------------------------------------------------------------------------------------


def test_the_table_holds_states_distances_measures_and_change(table) -> None:
    states = {row.name: row.state for row in rows_of(table)}
    assert states == {"stays": "matched", "grows": "matched", "gone": "resolved", "c1": "new"}
    row = list(states).index("grows")
    cells = cells_of(table, row)
    assert cells["State"] == "matched" and cells["Decision"] == "open"
    assert float(cells["Distance (mm)"]) < 1
    assert float(cells["Prior diameter (mm)"]) == pytest.approx(8.0, abs=0.6)
    assert float(cells["Volume change (%)"]) == pytest.approx(95.3, abs=8)
    assert float(cells["Doubling time (days)"]) == pytest.approx(180 * 0.693 / 0.669, rel=0.1)
    assert cells["Days apart"] == "180"
    shortest, longest = named(table, "grows").growth.doubling_time_range_days
    assert cells["Doubling time range (days)"] == f"{shortest:.0f} to {longest:.0f}"
    assert cells["Read with reserve"] == ""
    current = named(table, "grows").fixed_measurement
    assert float(cells["Current long diameter (mm)"]) == round(current.long_diameter_mm, 1)
    assert float(cells["Current short diameter (mm)"]) == round(current.short_diameter_mm, 1)
    assert float(cells["Current mean HU"]) == round(current.mean_hu)
    assert float(cells["Current mass (mg)"]) == round(current.mass_mg)
    assert cells["Track"] == named(table, "grows").identifier
    assert [float(v) for v in cells["Current position (RAS mm)"].split()] == pytest.approx(
        ras(GROWS), abs=0.06
    )


def test_a_doubling_time_to_be_read_with_reserve_says_so_in_the_table(table) -> None:
    row = [r.name for r in rows_of(table)].index("stays")
    change, cells = rows_of(table).rows[row].growth, cells_of(table, row)
    assert change.greyed and cells["Read with reserve"] == "; ".join(change.greyed)
    assert cells["Doubling time (days)"] == f"({change.doubling_time_days:.0f})"
    assert cells["Doubling time range (days)"].endswith(" to no doubling")


def test_nothing_that_the_user_had_is_changed(temporary: Path) -> None:
    pair = make_nodule_pair()
    nodes = (pair.priorPoints, pair.currentPoints, pair.current, pair.prior, pair.transform)
    before = [node.GetMTime() for node in nodes[:2]]
    voxels = [np.array(slicer.util.arrayFromVolume(node)) for node in nodes[2:4]]
    layers = [n.GetBackgroundVolumeID() for n in views.compositeNodes(slicer.mrmlScene)]
    markups = slicer.modules.markups.logic()
    markups.SetActiveList(pair.currentPoints)
    track(pair)
    assert markups.GetActiveListID() == pair.currentPoints.GetID()
    assert [node.GetMTime() for node in nodes[:2]] == before
    for array, node in zip(voxels, nodes[2:4], strict=True):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array)
        assert node.GetParentTransformNode() is None
    assert [n.GetBackgroundVolumeID() for n in views.compositeNodes(slicer.mrmlScene)] == layers
    assert list(temporary.iterdir()) == []


def test_markers_have_the_color_of_their_state_and_the_identity(table) -> None:
    for row in rows_of(table):
        for time_, place in (("prior", row.moving_position), ("current", row.fixed_position)):
            node, k = markers.markerOf(table, row.identifier, time_)
            assert node.GetAttribute(markers.STATE) == row.state
            shown = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
            assert [(d.GetVisibility2D(), d.GetVisibility3D()) for d in shown] == [(1, 0), (0, 1)]
            for display in shown:
                assert display.GetSelectedColor() == pytest.approx(markers.COLORS[row.state])
            assert node.GetNthControlPointLabel(k) == row.name
            position = node.GetNthControlPointPositionWorld(k)
            assert list(position) == pytest.approx(ras(place), abs=1e-3)
            assert node.GetNthControlPointLocked(k)
            volume = tables.volumesOf(table)[0 if time_ == "prior" else 1]
            assert node.GetNthControlPointAssociatedNodeID(k) == volume.GetID()


def test_without_current_nodules_they_are_predicted_and_an_empty_list_means_none() -> None:
    pair = make_nodule_pair()
    predicted = track(pair, currentNodules=None, segment=False)
    assert {row.state for row in rows_of(predicted)} == {"predicted"}
    nothing = point_list("Looked through", np.empty((0, 3)), [])
    resolved = track(pair, currentNodules=nothing, segment=False)
    assert {row.state for row in rows_of(resolved)} == {"resolved"}


def test_segmentations_and_label_maps_are_measured_as_they_were_marked() -> None:
    pair = make_nodule_pair()
    array = np.zeros(slicer.util.arrayFromVolume(pair.prior).shape, np.uint8)
    index = np.indices(array.shape)[::-1].reshape(3, -1).T
    matrix = vtk.vtkMatrix4x4()
    pair.prior.GetIJKToRASMatrix(matrix)
    places = index @ slicer.util.arrayFromVTKMatrix(matrix)[:3, :3].T + [
        matrix.GetElement(k, 3) for k in range(3)
    ]
    for value, center in ((1, STAYS), (2, GROWS)):
        near = np.linalg.norm(places - ras(np.add(center, SHIFT)), axis=1) < 4.0
        array.reshape(-1)[near] = value
    labels = slicer.util.addVolumeFromArray(
        array, name="labels", nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    labels.SetIJKToRASMatrix(matrix)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segments")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, segmentation)
    for k, name in enumerate(("upper", "lower")):
        segmentation.GetSegmentation().GetNthSegment(k).SetName(name)
    by_segments = GlideRegLogic().track(pair.transform, segmentation, pair.currentPoints)
    found = {row.name: row for row in rows_of(by_segments)}
    assert found["upper"].moving_method == "marked"
    assert found["lower"].growth.volume_change_percent == pytest.approx(95.3, abs=12)
    by_labels = GlideRegLogic().track(pair.transform, labels, pair.currentPoints, table=by_segments)
    assert by_labels is by_segments
    again = {row.state: row for row in rows_of(by_labels) if row.name == "label 1"}
    assert again["matched"].identifier == found["upper"].identifier, "known by where it is"


def test_the_prior_may_be_the_fixed_volume() -> None:
    pair = make_nodule_pair()
    table = GlideRegLogic().track(
        pair.transform, pair.currentPoints, pair.priorPoints, prior="fixed", segment=False
    )
    assert tables.volumesOf(table) == (pair.current, pair.prior)
    states = [(row.name, row.state) for row in rows_of(table)]
    assert states[:3] == [("c1", "resolved"), ("c2", "matched"), ("c3", "matched")]
    # The warped volume lies on the registration's fixed one: that is the prior here.
    views.showComparison(table)
    views.jumpTo(table, rows_of(table).rows[1].identifier)
    assert slice_center("GlideRegPriorAxial") == pytest.approx(ras(GROWS), abs=0.01)
    assert slice_center("GlideRegWarpedAxial") == pytest.approx(ras(GROWS), abs=0.01)
    there = ras(np.add(GROWS, SHIFT))
    assert slice_center("GlideRegCurrentAxial") == pytest.approx(there, abs=0.01)
    added = decisions.add(table, ras(np.add(FRESH, SHIFT)))
    there = rows_of(table).by_identifier(added).moving_position
    assert list(there) == pytest.approx(FRESH, abs=0.1)


def test_a_transform_of_somebody_else_is_sampled_and_linear_ones_are_exact() -> None:
    pair = make_nodule_pair()
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Other")
    grid.SetAndObserveTransformFromParent(pair.transform.GetTransformFromParent())
    matrix = np.eye(4)
    matrix[:3, 3] = -np.array(ras(SHIFT))  # as one puts the moving volume under it
    for transform in (grid, linear_node(matrix)):
        table = GlideRegLogic().track(
            transform,
            pair.priorPoints,
            pair.currentPoints,
            pair.current,
            pair.prior,
            refine=False,
            segment=False,
        )
        assert named(table, "stays").distance_mm < 0.05
        assert named(table, "grows").state == "matched"


def test_cancelling_leaves_nothing_behind(temporary: Path) -> None:
    pair = make_nodule_pair()
    many = np.array([np.add(STAYS, SHIFT)] * 200) + np.linspace(-3, 3, 200)[:, None]
    points = point_list("many", many, [str(k) for k in range(200)])
    before, seen = node_ids(), []
    request = TrackRequest(pair.current, pair.prior, pair.transform, points)
    run = TrackingRun(request, GlideRegLogic().library, seen.append)
    run.start()
    deadline = time.monotonic() + 60
    while not any(update.stage == "Tracking nodules" for update in seen):
        assert time.monotonic() < deadline, run.log
        run.poll()
        time.sleep(0.02)
    run.cancel()
    wished = time.monotonic()
    while not run.poll():
        time.sleep(0.02)
    assert time.monotonic() - wished < 2.5
    assert (run.state, run.error) == ("cancelled", "")
    assert node_ids() == before
    assert list(temporary.iterdir()) == []


# --- sentences ------------------------------------------------------------------------------------


def test_what_is_missing_is_said_in_one_sentence() -> None:
    pair = make_nodule_pair()
    good = {
        "fixedVolume": pair.current,
        "movingVolume": pair.prior,
        "transform": pair.transform,
        "priorNodules": pair.priorPoints,
    }
    assert TrackRequest(**good).problem() == ""
    empty = point_list("empty", np.empty((0, 3)), [])
    for changed, said in (
        ({"movingVolume": None}, "under Inputs"),
        ({"transform": None}, "Register the volumes first"),
        ({"fixedVolume": pair.prior, "movingVolume": pair.current}, "registers other volumes"),
        ({"priorNodules": None}, "nodules of the prior scan"),
        ({"currentNodules": pair.priorPoints}, "same nodules"),
        ({"priorNodules": empty}, "no placed point"),
    ):
        assert said in TrackRequest(**{**good, **changed}).problem()
    pair.prior.SetAndObserveTransformNodeID(pair.transform.GetID())
    assert "prior volume is under a deforming" in TrackRequest(**good).problem()
    with pytest.raises(InputError, match="native images"):
        track(pair)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("2024-01-31", ""), "both scans"),
        (("31.1.2024", "2024-08-01"), "2024-03-31"),
        (("2024-08-01", "2024-01-31"), "must follow"),
    ],
)
def test_dates_that_are_none_are_refused(texts: tuple, said: str) -> None:
    with pytest.raises(InputError, match=said):
        daysBetween(*texts)


def test_dates_become_days() -> None:
    assert daysBetween("2024-01-31", " 2024-08-18 ") == 200
    assert daysBetween("", "") is None


class Database:
    """Slicer's DICOM database, as far as it is asked: tags by instance."""

    isOpen = True

    def __init__(self, values: dict[str, dict[str, str]]) -> None:
        self.values = values

    def instanceValue(self, uid: str, tag: str) -> str:
        return self.values.get(uid, {}).get(tag, "")


def test_the_date_of_a_volume_from_dicom_is_that_of_its_acquisition(monkeypatch) -> None:
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    assert dates.scanDate(volume) == "", "no DICOM"
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert dates.scanDate(volume) == "", "no database"
    for values, said in (
        ({"0008,0022": "20240131", "0008,0020": "20240201"}, "2024-01-31"),
        ({"0008,0022": "", "0008,0020": "2024.02.01"}, "2024-02-01"),
        ({"0008,0022": "unknown"}, ""),
    ):
        monkeypatch.setattr(slicer, "dicomDatabase", Database({"1.2.3": values}), raising=False)
        assert dates.scanDate(volume) == said


def test_days_count_for_the_two_scans_in_their_roles_only() -> None:
    pair, other = make_nodule_pair(), make_nodule_pair()
    chosen = GlideRegLogic().getParameterNode()
    chosen.fixedVolume, chosen.movingVolume = pair.current, pair.prior
    dates.keepDays(chosen, 200)
    assert GlideRegLogic().trackRequestFrom(chosen).days == 200
    chosen.movingVolume = other.prior
    assert GlideRegLogic().trackRequestFrom(chosen).days is None
    chosen.fixedVolume, chosen.movingVolume = pair.prior, pair.current
    assert GlideRegLogic().trackRequestFrom(chosen).days is None, "roles are exchanged"
    chosen.priorScan = type(chosen.priorScan).FIXED
    assert GlideRegLogic().trackRequestFrom(chosen).days == 200, "the same prior, the same current"


def test_nodules_outside_their_scan_are_refused_by_the_worker() -> None:
    pair = make_nodule_pair()
    far = point_list("far", np.array([[900.0, 900, 900]]), ["far"])
    before = node_ids()
    with pytest.raises(GlideRegError, match="lie outside of it"):
        GlideRegLogic().track(pair.transform, far)
    assert node_ids() == before


# --- decisions ------------------------------------------------------------------------------------


def test_a_correction_is_measured_and_survives_saving(table, tmp_path: Path) -> None:
    gone, stays = named(table, "gone"), named(table, "stays")
    decisions.correct(table, gone.identifier, ras(np.add(FRESH, 0.5)))
    decisions.confirm(table, stays.identifier)
    decisions.reject(table, named(table, "grows").identifier)
    row = rows_of(table).by_identifier(gone.identifier)
    assert (row.state, row.decision) == ("matched", "corrected")
    assert row.fixed_center == pytest.approx(FRESH, abs=1e-3), "the nodule that is marked there"
    assert "c1" not in [row.name for row in rows_of(table)]
    assert row.fixed_measurement.equivalent_diameter_mm == pytest.approx(7.0, rel=0.08)
    node, k = markers.markerOf(table, gone.identifier)
    assert node.GetAttribute(markers.STATE) == "matched"
    assert markers.markersOf(table, "current", "resolved") is None
    hidden, index = markers.markerOf(table, named(table, "grows").identifier)
    assert not hidden.GetNthControlPointVisibility(index)
    expected = rows_of(table)
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "decided.mrb"))

    again = fresh_scene()
    assert again.scene.ReadFromMRB(str(tmp_path / "decided.mrb"))
    loaded = slicer.util.getNode("tracked")
    assert rows_of(loaded) == expected
    node, k = markers.markerOf(loaded, gone.identifier)
    assert list(node.GetNthControlPointPositionWorld(k)) == pytest.approx(ras(FRESH), abs=1e-3)
    assert tables.volumesOf(loaded)[0].GetName() == "Prior CT"
    again.close()


def test_a_decision_can_be_taken_back(table) -> None:
    proposed = rows_of(table)
    gone = named(table, "gone").identifier
    decisions.correct(table, gone, ras(FRESH))
    decisions.reopen(table, gone)
    assert rows_of(table) == proposed
    assert markers.markerOf(table, gone)[0].GetAttribute(markers.STATE) == "resolved"


def test_a_rejection_that_is_taken_back_keeps_the_work_before(table) -> None:
    gone, grows = named(table, "gone").identifier, named(table, "grows").identifier
    decisions.correct(table, gone, ras(FRESH))
    corrected = rows_of(table)
    decisions.reject(table, gone)
    decisions.reopen(table, gone)
    assert rows_of(table) == corrected
    decisions.confirm(table, grows)
    decisions.reject(table, grows)
    decisions.reopen(table, grows)
    assert rows_of(table).by_identifier(grows).decision == "confirmed"


def test_a_pair_that_is_taken_apart_has_two_rows_with_both_places(table) -> None:
    proposed, grows = rows_of(table), named(table, "grows")
    GlideRegLogic().separateNodule(table, grows.identifier)
    assert (named(table, "grows").state, named(table, "grows").fixed_center) == ("resolved", None)
    new = named(table, "grows (current)")
    assert (new.state, new.decision, new.identifier) == ("new", "confirmed", grows.fixed_identifier)
    assert list(new.moving_position) == pytest.approx(np.add(GROWS, SHIFT), abs=0.1)
    assert markers.markerOf(table, new.identifier)[0].GetAttribute(markers.STATE) == "new"
    decisions.reopen(table, grows.identifier)
    assert rows_of(table) == proposed
    assert markers.markerOf(table, new.identifier) is None


def test_a_nodule_that_is_added_is_new_and_has_its_place_in_the_prior(table) -> None:
    identifier = decisions.add(table, ras(GROWS))
    row = rows_of(table).by_identifier(identifier)
    assert (row.name, row.state, row.decision) == ("New 1", "new", "confirmed")
    assert list(row.moving_position) == pytest.approx(np.add(GROWS, SHIFT), abs=0.1)
    assert row.fixed_measurement is not None
    with pytest.raises(InputError, match="outside the current scan"):
        decisions.add(table, [900.0, 0.0, 0.0])


def test_a_second_run_keeps_decisions_by_identity(table) -> None:
    points, current = (slicer.util.getNode(n) for n in ("Prior nodules", "Current nodules"))
    transform = slicer.util.getNode("Prior CT to Current CT")
    before = {row.name: row.identifier for row in rows_of(table)}
    decisions.confirm(table, before["stays"])
    decisions.correct(table, before["gone"], ras(FRESH))
    decisions.reject(table, before["grows"])
    # The prior's point is placed a little better; it is the same nodule.
    moved = np.array(points.GetNthControlPointPositionWorld(0)) + 0.8
    points.SetNthControlPointPositionWorld(0, *moved.tolist())
    count = len(node_ids())
    again = GlideRegLogic().track(transform, points, current, days=180.0, table=table)
    assert again is table
    found = {row.name: row for row in rows_of(table)}
    del before["c1"]  # that is the nodule of the corrected row now
    assert {name: row.identifier for name, row in found.items()} == before
    decided = {name: row.decision for name, row in found.items()}
    assert decided == {"stays": "confirmed", "grows": "rejected", "gone": "corrected"}
    assert list(found["gone"].fixed_center) == pytest.approx(FRESH, abs=1e-3)
    assert len(node_ids()) <= count + 2, "nothing is there twice"


def test_a_table_of_other_scans_gives_its_identities_to_nobody(table, tmp_path: Path) -> None:
    names = ("Current CT", "Prior CT", "Prior CT to Current CT", "Prior nodules", "Current nodules")
    own = [slicer.util.getNode(name) for name in names]
    other = make_nodule_pair()  # as if of another patient: the same places
    nodes = (other.current, other.prior, other.transform, other.priorPoints, other.currentPoints)
    job = collectNodules(TrackRequest(*nodes, table=table), tmp_path).job
    assert (job["moving_identities"], job["fixed_identities"]) == ([], [])
    again = collectNodules(TrackRequest(*own, table=table), tmp_path).job
    assert len(again["moving_identities"]) == len(again["fixed_identities"]) == 3


def test_tracks_go_on_when_the_current_scan_becomes_the_prior(table, tmp_path: Path) -> None:
    decisions.reject(table, named(table, "grows").identifier)
    later = make_nodule_pair()
    prior = tables.volumesOf(table)[1]
    points = slicer.util.getNode("Current nodules")
    nodes = (later.current, prior, later.transform, points, later.currentPoints)
    job = collectNodules(TrackRequest(*nodes, table=table), tmp_path).job
    known = {key: place for key, place in job["moving_identities"]}
    wanted = {named(table, name).identifier: p for name, p in (("stays", STAYS), ("c1", FRESH))}
    assert known.keys() == wanted.keys(), "the track goes on, a rejected one does not"
    for key, place in wanted.items():
        assert known[key] == pytest.approx(place, abs=1e-3)
    assert job["fixed_identities"] == []


def test_the_export_has_the_decisions_and_no_names_of_volumes(table, tmp_path: Path) -> None:
    logic = GlideRegLogic()
    logic.confirmNodule(table, named(table, "stays").identifier)
    logic.exportNodules(table, tmp_path / "nodules.csv")
    with (tmp_path / "nodules.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["decision"] == "confirmed"
    assert "Research use only" in rows[0]["notice"]
    assert "CT" not in (tmp_path / "nodules.csv").read_text(encoding="utf-8")


def test_a_damaged_table_is_one_sentence(table) -> None:
    table.SetAttribute(tables.ATTRIBUTE, "{")
    with pytest.raises(InputError, match="track the nodules again"):
        tables.trackingOf(table)
    with pytest.raises(InputError, match="no tracked nodules"):
        tables.trackingOf(slicer.util.getNode("Prior nodules"))


# --- views ----------------------------------------------------------------------------------------


def slice_center(name: str) -> list[float]:
    node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
    return [node.GetSliceToRAS().GetElement(k, 3) for k in range(3)]


def test_a_jump_shows_the_nodule_in_each_scan_at_once(table) -> None:
    prior, current = tables.volumesOf(table)
    backgrounds = {"Red": current, "Yellow": prior, "Green": None}
    for name, volume in backgrounds.items():
        composite = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")
        composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
    layout = slicer.mrmlScene.AddNode(slicer.vtkMRMLLayoutNode())
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    before = views.showComparison(table)
    assert before == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    assert views.comparisonShown(slicer.mrmlScene)
    GlideRegLogic().jumpToNodule(table, named(table, "stays").identifier)
    now, earlier = ras(STAYS), ras(np.add(STAYS, SHIFT))
    for name in ("Red", "Green", "GlideRegCurrentAxial", "GlideRegWarpedSagittal"):
        assert slice_center(name) == pytest.approx(now, abs=1e-3)
    for name in ("Yellow", "GlideRegPriorAxial", "GlideRegPriorCoronal"):
        assert slice_center(name) == pytest.approx(earlier, abs=1e-3)
    views.showLayout(slicer.mrmlScene, before)
    assert not views.comparisonShown(slicer.mrmlScene)


def test_each_column_shows_its_volume_and_the_usual_views_stay(table) -> None:
    layers = [n.GetBackgroundVolumeID() for n in views.compositeNodes(slicer.mrmlScene)]
    views.showComparison(table)
    for column, name in (
        ("Prior", "Prior CT"),
        ("Warped", "Prior warped"),
        ("Current", "Current CT"),
    ):
        for plane in views.PLANES:
            composite = slicer.mrmlScene.GetSingletonNode(
                views.viewName(column, plane), "vtkMRMLSliceCompositeNode"
            )
            volume = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID())
            assert volume.GetName() == name
    assert [n.GetBackgroundVolumeID() for n in views.compositeNodes(slicer.mrmlScene)] == layers
    assert len(layers) == 3


def test_markers_are_drawn_in_the_views_of_their_scan(table) -> None:
    views.assignViews(table)
    for node in markers.allMarkers(table, "prior"):
        ids = node.GetDisplayNode().GetViewNodeIDs()
        assert len(ids) == 3 and all("GlideRegPrior" in one for one in ids)
    for node in markers.allMarkers(table, "current"):
        ids = node.GetDisplayNode().GetViewNodeIDs()
        assert any("vtkMRMLViewNode" in one for one in ids), "also in 3-D"
        assert any("Red" in one for one in ids) and not any("Prior" in one for one in ids)


def test_slice_views_draw_the_nodule_in_its_color_in_each_scan(
    scene: SceneHarness, table, pictures: Path
) -> None:
    drawn = {
        column: SliceView(scene, views.viewName(column, "Axial"), size=(240, 240))
        for column in ("Prior", "Current")
    }
    views.showComparison(table)
    row = named(table, "stays")
    views.jumpTo(table, row.identifier)
    wanted = 255 * np.array(markers.COLORS["matched"])
    for column, place in (("Prior", row.moving_position), ("Current", row.fixed_position)):
        view = drawn[column]
        picture = view.render(pictures / f"nodule-{column.lower()}.png").astype(float)
        r, c = view.pixel(ras(place))
        assert (r, c) == (pytest.approx(119.5, abs=1), pytest.approx(119.5, abs=1))
        near = picture[r - 12 : r + 13, c - 12 : c + 13].reshape(-1, 3)
        assert (np.abs(near - wanted).max(axis=1) < 40).sum() > 10, "the marker"
        assert (near.min(axis=1) > 150).sum() > 20, "the nodule behind it"
