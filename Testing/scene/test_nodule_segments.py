"""The voxels that were measured come back as segmentations, follow decisions, and are saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk

from GlideReg import GlideRegLogic
from GlideRegRun import folders
from GlideRegScene.nodules import decisions, tables, views
from GlideRegScene.nodules.segments import segmentId, segmentsOf
from slicer_harness.nodule_pair import NodulePair, make_nodule_pair, ras
from slicer_harness.scene import SceneHarness, fresh_scene


def track(pair: NodulePair, **options):
    return GlideRegLogic().track(pair.transform, pair.priorPoints, pair.currentPoints, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run, saved as a scene: it is made once."""
    harness = fresh_scene()
    track(make_nodule_pair()).SetName("tracked")
    path = tmp_path_factory.mktemp("segments") / "tracked.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    harness.close()
    return path


@pytest.fixture
def table(scene: SceneHarness, saved: Path) -> Iterator[object]:
    assert slicer.mrmlScene.ReadFromMRB(str(saved))
    return slicer.util.getNode("tracked")


@pytest.fixture(autouse=True)
def temporary(scene: SceneHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "temporaryFolder", lambda: str(tmp_path))


def named(table, name: str):
    return next(row for row in tables.trackingOf(table) if row.name == name)


def segments(table, time: str) -> dict[str, bool]:
    """Names of the segments and whether they are shown."""
    node = segmentsOf(table, time)
    ids = node.GetSegmentation().GetSegmentIDs()
    display = node.GetDisplayNode()
    name = {i: node.GetSegmentation().GetSegment(i).GetName() for i in ids}
    return {name[i]: display.GetSegmentVisibility(i) for i in ids}


def voxels(table, time: str, measurement) -> np.ndarray:
    """World RAS of the voxels of a segment, on those of its scan."""
    volume = tables.volumesOf(table)[("prior", "current").index(time)]
    node, matrix = segmentsOf(table, time), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId(measurement), volume)
    affine = slicer.util.arrayFromVTKMatrix(matrix)
    return np.argwhere(found)[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]


def test_each_scan_has_the_voxels_that_were_measured(table) -> None:
    assert set(segments(table, "prior")) == {"stays", "grows", "gone"}
    assert set(segments(table, "current")) == {"stays", "grows", "c1"}
    for time, side in (("prior", "moving"), ("current", "fixed")):
        for row in tables.trackingOf(table):
            found = getattr(row, f"{side}_measurement")
            if found is not None:
                places = voxels(table, time, found)
                assert len(places) == found.voxels
                assert np.allclose(places.mean(axis=0), ras(found.centroid), atol=0.5)


def test_they_are_drawn_as_lines_in_the_views_of_their_scan(table) -> None:
    views.showComparison(table)
    for time, column in (("prior", "Prior"), ("current", "Current")):
        display = segmentsOf(table, time).GetDisplayNode()
        assert not display.GetVisibility2DFill() and display.GetVisibility2DOutline()
        scene = table.GetScene()
        name = views.viewName(column, "Axial")
        assert scene.GetSingletonNode(name, "vtkMRMLSliceNode").GetID() in display.GetViewNodeIDs()
    prior = set(segmentsOf(table, "prior").GetDisplayNode().GetViewNodeIDs())
    assert not prior & set(segmentsOf(table, "current").GetDisplayNode().GetViewNodeIDs())


def test_a_correction_brings_its_own_voxels_and_can_be_taken_back(table) -> None:
    row = named(table, "gone")
    place = np.add(named(table, "c1").fixed_center, (0.5, 0, 0))
    decisions.correct(table, row.identifier, ras(place))
    moved = named(table, "gone").fixed_measurement
    assert segments(table, "current")["gone"]
    assert len(voxels(table, "current", moved)) == moved.voxels
    decisions.reopen(table, row.identifier)
    assert "c1" in segments(table, "current")


def test_what_is_rejected_is_hidden(table) -> None:
    decisions.reject(table, named(table, "stays").identifier)
    assert not segments(table, "current")["stays"]
    assert segments(table, "current")["grows"]


def test_a_second_run_leaves_no_voxels_of_the_first(scene: SceneHarness) -> None:
    pair = make_nodule_pair()
    table = track(pair)
    count = len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    pair.currentPoints.RemoveNthControlPoint(1)  # GROWS
    assert track(pair, table=table) is table
    assert "grows" not in segments(table, "current")
    assert "stays" in segments(table, "current")
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == count == 2


def test_without_measurements_there_is_no_segmentation(scene: SceneHarness) -> None:
    table = track(make_nodule_pair(), segment=False)
    assert segmentsOf(table, "prior") is None and segmentsOf(table, "current") is None
