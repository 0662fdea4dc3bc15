"""Assessments in the scene: by the real worker, of transforms by whomever, saved and exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer

from GlideReg import GlideRegLogic
from GlideRegLib.assurance.job import AssessJob, run_assess_job
from GlideRegLib.assurance.records import Assessment
from GlideRegLib.errors import InputError
from GlideRegRun import folders
from GlideRegScene.quality import overlay, structures, tables
from GlideRegScene.quality.request import AssessRequest, collectAssessment
from slicer_harness.quality_pair import (
    HEART_OFF,
    SHIFT,
    SIZE,
    QualityPair,
    folded_vectors,
    grid_node,
    make_quality_pair,
    shift_node,
)
from slicer_harness.scene import SceneHarness, fresh_scene

FOLD = (16, 15, 13)


@pytest.fixture(autouse=True)
def temporary(scene: SceneHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slicer's temporary folder, empty, to see what a run leaves there."""
    folder = tmp_path / "slicer-temporary"
    folder.mkdir()
    monkeypatch.setattr(folders, "temporaryFolder", lambda: str(folder))
    return folder


def assess(pair: QualityPair, transform=None, **options):
    """An assessment by the logic, through the worker, with everything there is."""
    chosen = {
        "fixedLandmarks": pair.fixedLandmarks,
        "movingLandmarks": pair.movingLandmarks,
        "fixedStructures": pair.fixedStructures,
        "movingStructures": pair.movingStructures,
        **options,
    }
    transform = transform or pair.transform
    return GlideRegLogic().assess(transform, pair.fixed, pair.moving, **chosen)


def measured(pair: QualityPair, folder: Path, transform=None, **options) -> Assessment:
    """The same files, measured in this process: quicker, and without nodes."""
    chosen = {"fixedStructures": pair.fixedStructures, "fixedLandmarks": pair.fixedLandmarks}
    chosen["movingLandmarks"] = pair.movingLandmarks
    given = (pair.fixed, pair.moving, transform or pair.transform)
    request = AssessRequest(*given, **{**chosen, **options})
    assert request.problem() == ""
    folder.mkdir(exist_ok=True)
    collected = collectAssessment(request, folder)
    collected.write()
    job = AssessJob.from_json(json.dumps({**collected.job, "output": str(folder / "out")}))
    return run_assess_job(job)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real assessment of a folded grid transform with cubic interpolation, saved as a scene."""
    harness = fresh_scene()
    pair = make_quality_pair()
    folded = grid_node(folded_vectors(FOLD), "Folded", cubic=True)
    back = shift_node(-SHIFT, "Back")
    assess(pair, folded, backward=back, jacobian=True).SetName("assessed")
    path = tmp_path_factory.mktemp("quality") / "assessed.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    harness.close()
    return path


@pytest.fixture
def table(scene: SceneHarness, saved: Path) -> Iterator[object]:
    """The table of the assessment, from the saved scene."""
    assert slicer.mrmlScene.ReadFromMRB(str(saved))
    return slicer.util.getNode("assessed")


def found_in(table) -> Assessment:
    return tables.assessmentOf(table)


def node_ids() -> set[str]:
    return {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}


def fold_place() -> np.ndarray:
    """LPS mm of the middle of the planted fold."""
    from slicer_harness.quality_pair import ORIGIN, SPACING

    return np.asarray(ORIGIN) + (np.asarray(FOLD) - 0.5) * SPACING


# --- known answers --------------------------------------------------------------------------------


def test_a_linear_transform_of_other_software_is_measured_and_nothing_is_changed(
    temporary: Path,
) -> None:
    pair = make_quality_pair()
    back = shift_node(-SHIFT, "Back")
    nodes = [pair.transform, pair.fixedLandmarks, pair.fixedStructures, pair.movingStructures]
    times, before = [node.GetMTime() for node in nodes], node_ids()
    runs: list = []
    found = found_in(assess(pair, backward=back, onFinished=runs.append))
    assert [node.GetMTime() for node in nodes] == times
    created = runs[0].result.created
    assert node_ids() - before == {node.GetID() for node in created}, "all that is new is reported"
    names = [node.GetClassName() for node in created]
    assert "vtkMRMLSegmentationNode" not in names and "vtkMRMLLabelMapVolumeNode" not in names
    tre = found.find("tre_mean", "landmarks")
    assert tre.value == pytest.approx(0, abs=1e-3)
    assert tre.before == pytest.approx(np.linalg.norm(SHIFT), abs=1e-3)
    assert found.find("dice", "Lung").value == 1.0
    assert found.find("dice", "Tumor").value == 1.0, "it lies in the lung, and counts by itself"
    # The heart's contour is off, and only that is not compliant.
    assert found.worst_structure == "Heart"
    assert found.find("centroid_shift", "Heart").value == pytest.approx(
        np.linalg.norm(HEART_OFF), abs=0.01
    )
    assert found.verdict.value == "not compliant"
    assert not list(temporary.iterdir()), "the folder of the run is gone"


def test_how_far_each_structure_moved_is_in_a_table_of_its_own(tmp_path: Path) -> None:
    found = measured(make_quality_pair(), tmp_path)
    moved = tables.motions(found)
    assert sorted(moved) == ["Heart", "Lung", "Tumor"]
    for vector, contours in moved.values():
        assert vector == pytest.approx(SHIFT.tolist(), abs=1e-3)
        assert contours is None
    motion = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    tables.storeMotion(motion, found)
    row = list(moved).index("Tumor")
    cells = [motion.GetCellText(row, k) for k in range(5)]
    assert cells == ["Tumor", "4.00", "-8.00", "12.00", f"{np.linalg.norm(SHIFT):.2f}"]
    assert found.find("dice", "Tumor").verdict.value == "not verified"


def test_a_planted_fold_is_found_and_marked_at_its_place(table) -> None:
    markers = tables.belonging(table, tables.FOLDS_ROLE)
    place = np.array(markers.GetNthControlPointPositionWorld(0)) * (-1, -1, 1)
    np.testing.assert_allclose(place, fold_place(), atol=8.0)  # two voxels
    assert "in the body" in markers.GetNthControlPointDescription(0)
    found = found_in(table)
    assert found.find("folding", "body").verdict.value == "not compliant"
    # The voxels that are folded are those of the field itself, not of a smoothed copy.
    folded = slicer.util.arrayFromVolume(overlay.mapOf(table)) <= 0
    assert 20 <= folded.sum() <= 400
    middle = np.argwhere(folded)[:, ::-1].mean(axis=0)
    np.testing.assert_allclose(middle, np.asarray(FOLD) - 0.5, atol=1.0)


def test_a_linear_grid_and_a_cubic_one_are_measured_as_they_are(tmp_path: Path) -> None:
    """Between its points the cubic grid differs; at voxels of the lattice both are the same."""
    pair = make_quality_pair()
    results = {}
    for cubic in (False, True):
        node = grid_node(folded_vectors(FOLD), f"Grid {cubic}", cubic)
        found = measured(pair, tmp_path / str(cubic), node, fixedStructures=None)
        results[cubic] = (found.find("jacobian_min", "grid").value, found.find("largest_fold").n)
    assert results[True] == pytest.approx(results[False], rel=1e-3)
    assert results[True][0] < 0


def test_beyond_a_small_grid_the_transform_goes_on_as_in_slicer(tmp_path: Path) -> None:
    pair = make_quality_pair()
    half = np.tile(SHIFT, (14, 16, 18, 1))
    found = measured(pair, tmp_path, grid_node(half, "Half"))
    assert found.find("tre_max", "landmarks").value < 0.01
    assert found.find("folding", "grid").value == 0
    assert not any("ends inside" in note for note in found.notes)


# --- nodes ----------------------------------------------------------------------------------------


def test_everything_is_there_after_saving_and_loading(table) -> None:
    found = found_in(table)
    assert found.worst_structure == "Heart"
    assert tables.isQualityTable(table) and table.GetNumberOfColumns() == 7
    titles = [table.GetColumnName(k) for k in range(7)]
    column = titles.index("Verdict")
    verdicts = [table.GetCellText(row, column) for row in range(len(found.graded()))]
    severities = ["not compliant", "review", "not verified", "compliant"]
    assert sorted(verdicts, key=severities.index) == verdicts, "the worst on top"
    assert "Research use only" in table.GetDescription()
    for role in (tables.MOTION_ROLE, tables.FOLDS_ROLE, tables.JACOBIAN_ROLE):
        assert tables.belonging(table, role) is not None


def test_a_second_assessment_fills_the_same_nodes_and_takes_folds_back(table) -> None:
    transform = table.GetNodeReference("GlideRegTransform")
    transform.SetAndObserveTransformFromParent(
        grid_node(np.tile(SHIFT, (*SIZE[::-1], 1)), "Clean").GetTransformFromParent()
    )
    before = node_ids()
    fixed, moving = slicer.util.getNode("Planning CT"), slicer.util.getNode("Repeat CT")
    again = GlideRegLogic().assess(transform, fixed, moving, table=table)
    assert again is table
    assert tables.belonging(table, tables.FOLDS_ROLE) is None
    assert overlay.mapOf(table) is None, "the map was that of the transform before"
    assert node_ids() <= before


def test_a_jump_goes_to_the_place_of_a_measure_in_all_views(table) -> None:
    found = found_in(table)
    place = tables.place(found, found.find("folding", "body"))
    GlideRegLogic.jumpToPlace(place)
    for name in ("Red", "Yellow", "Green"):
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
        center = [node.GetSliceToRAS().GetElement(k, 3) for k in range(3)]
        assert center == pytest.approx(np.array(place) * (-1, -1, 1), abs=1e-2)
    assert "fold" in GlideRegLogic.jumpToWorst(table)


def test_the_determinant_is_shown_with_a_legend_and_taken_away_again(table) -> None:
    composite = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    state = overlay.display.ViewState(slicer.mrmlScene)
    before = composite.GetForegroundVolumeID()
    overlay.show(table, True)
    assert overlay.isShown(table)
    assert overlay.legendOf(overlay.mapOf(table)).GetVisibility()
    overlay.show(table, False, state)
    assert composite.GetForegroundVolumeID() == before
    assert not overlay.legendOf(overlay.mapOf(table)).GetVisibility()


# --- report ---------------------------------------------------------------------------------------


def test_what_cannot_be_reported_is_said(table, tmp_path: Path) -> None:
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("Repeat structures"))
    with pytest.raises(InputError, match="no longer in the scene"):
        GlideRegLogic().exportAssessment(table, tmp_path / "report")
    assert not (tmp_path / "report").exists()


# --- what is refused ------------------------------------------------------------------------------


def test_what_is_missing_or_contradictory_is_one_sentence() -> None:
    pair = make_quality_pair()

    def problem(**options) -> str:
        values = {"fixedVolume": pair.fixed, "movingVolume": pair.moving, **options}
        return AssessRequest(**{"transform": pair.transform, **values}).problem()

    assert problem() == ""
    assert "Choose the fixed and the moving volume" in problem(movingVolume=None)
    assert "Register the volumes first" in problem(transform=None)
    assert "its own way back" in problem(backward=pair.transform)
    assert "moving landmarks too" in problem(fixedLandmarks=pair.fixedLandmarks)
    assert "fixed scan too" in problem(movingStructures=pair.movingStructures)
    assert "Tick at least one" in problem(fixedStructures=pair.fixedStructures, structures=[])
    pair.moving.SetAndObserveTransformNodeID(pair.transform.GetID())
    assert "moving volume is under the transform" in problem()


def test_structures_pair_by_their_names_each_once() -> None:
    pair = make_quality_pair()
    assert structures.names(pair.fixedStructures) == ["Lung", "Tumor", "Heart"]
    request = AssessRequest(pair.fixed, pair.moving, pair.transform, structures=["Heart", "Liver"])
    request.fixedStructures = pair.fixedStructures
    assert request.chosen == ["Heart"]


def test_a_structure_without_voxels_is_refused_by_its_name(tmp_path: Path) -> None:
    pair = make_quality_pair()
    pair.fixedStructures.GetSegmentation().AddEmptySegment("Liver", "Liver")
    with pytest.raises(InputError, match="'Liver' has no voxel"):
        measured(pair, tmp_path)
    assert measured(pair, tmp_path, structures=["Heart"]).structures() == ["Heart"]


def test_a_table_of_something_else_is_refused() -> None:
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Other")
    assert not tables.isQualityTable(other)
    with pytest.raises(InputError, match="no assessment"):
        tables.assessmentOf(other)
    other.SetAttribute(tables.ATTRIBUTE, '{"measures": 3}')
    with pytest.raises(InputError, match="damaged"):
        tables.assessmentOf(other)
