"""The section Propagate, by clicks: from a tick to new nodes, and back by Undo.

Widgets are stand-ins (see Testing/slicer_harness); scene, worker and numbers are real.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import qt
import slicer
import vtk
from driving import Heart, OpenModule

SHIFT = np.array([9.0, -6.0, 4.0])  # fixed to moving, RAS mm


def volume(name: str, values: np.ndarray) -> object:
    node = slicer.util.addVolumeFromArray(values, name=name)
    node.SetSpacing(3, 3, 3)
    node.SetOrigin(-45, -45, -45)
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def carried(module: OpenModule) -> SimpleNamespace:
    """Two volumes, a transform between them, and what was drawn on the moving one."""
    block = np.zeros((30, 30, 30), np.int16)
    block[10:20, 10:20, 10:20] = 1
    fixed, moving = volume("New CT", 40 * block), volume("Old CT", 50 * block)
    dose = volume("Plan", (block * 20).astype(np.float32))
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        matrix.SetElement(row, 3, -SHIFT[row])
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Old to new")
    transform.SetMatrixTransformToParent(matrix)
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "L")
    slicer.util.updateVolumeFromArray(labels, block)
    labels.CopyOrientation(moving)
    structures = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Structures")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, structures)
    structures.SetReferenceImageGeometryParameterFromVolumeNode(moving)
    slicer.mrmlScene.RemoveNode(labels)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Marks")
    points.AddControlPoint(vtk.vtkVector3d(3, 2, 1), "apex")
    module.ui.fixedVolumeSelector.setCurrentNode(fixed)
    module.ui.movingVolumeSelector.setCurrentNode(moving)
    module.openSection("propagateSection")
    module.ui.propagateTransformSelector.setCurrentNode(transform)
    module.processEvents()
    return SimpleNamespace(
        fixed=fixed, moving=moving, dose=dose, structures=structures, points=points
    )


def rows(module: OpenModule) -> dict[str, tuple[bool, str]]:
    """Name -> whether it is ticked, and as what it goes."""
    table, found = module.ui.propagateTable, {}
    for row in range(table.rowCount):
        combo = table.cellWidget(row, 1)
        kind = combo.currentText if combo is not None else table.item(row, 1).text()
        ticked = table.item(row, 0).checkState() == qt.Qt.Checked
        found[table.item(row, 0).text()] = (ticked, kind)
    return found


def tick(module: OpenModule, name: str, state: bool = True) -> None:
    table = module.ui.propagateTable
    row = list(rows(module)).index(name)
    table.item(row, 0).setCheckState(qt.Qt.Checked if state else qt.Qt.Unchecked)
    module.processEvents()


def names() -> list[str]:
    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(k).GetName() or "" for k in range(scene.GetNumberOfNodes()))


def test_from_ticks_to_new_nodes_and_undo(module: OpenModule, carried: SimpleNamespace) -> None:
    ui = module.ui
    # What was drawn on the source is ticked; the volumes of the registration are not in the list.
    assert rows(module) == {
        "Structures": (True, "Segmentation"),
        "Marks": (False, "Markups"),
        "Plan": (False, "Image"),
    }
    tick(module, "Marks")
    tick(module, "Plan")
    ui.propagateTable.cellWidget(2, 1).setCurrentIndex(1)
    module.processEvents()
    assert rows(module)["Plan"] == (True, "Dose")
    assert ui.propagateButton.enabled and not ui.undoPropagateButton.enabled
    before, heart, lines = names(), Heart(), set()
    module.click("propagateButton")
    heart.mark()
    assert not ui.applyButton.enabled and not ui.trackButton.enabled

    def over() -> bool:
        lines.add(ui.propagateStatusLabel.text.split(" ")[0])
        return module.logic.running is None

    module.waitUntil(over, 60)
    module.processEvents()
    heart.stop()
    assert ui.propagateStatusLabel.text == "3 new nodes on 'New CT'."
    assert {"Reading", "Saving"} <= lines
    assert heart.longest(sinceMark=True) < 0.5
    assert not ui.propagateProgressBar.visible and ui.applyButton.toolTip

    scene = slicer.mrmlScene
    marks = scene.GetFirstNodeByName("Marks on New CT")
    found = np.array(marks.GetNthControlPointPositionWorld(0))
    np.testing.assert_allclose(found, np.array([3, 2, 1]) - SHIFT, atol=1e-6)
    assert marks.GetNthControlPointLabel(0) == "apex"
    plan = slicer.util.arrayFromVolume(scene.GetFirstNodeByName("Plan on New CT"))
    # 3 mm voxels along +R, +A, +S: the block went by -9, 6 and -4 mm.
    assert plan.max() == pytest.approx(20)
    assert plan[14, 16, 11] == pytest.approx(20) and plan[14, 10, 19] == 0
    structures = scene.GetFirstNodeByName("Structures on New CT")
    identifier = structures.GetSegmentation().GetNthSegmentID(0)
    # A center of voxels, which may be half a voxel off along each axis.
    center = np.array(structures.GetSegmentCenterRAS(identifier))
    np.testing.assert_allclose(center, [-1.5, -1.5, -1.5] - SHIFT, atol=2)

    # What is done is not ticked any more, and what was made is not suggested.
    assert not any(ticked for ticked, _ in rows(module).values())
    assert "Tick what" in ui.propagateButton.toolTip
    module.click("undoPropagateButton")
    assert names() == before
    assert not ui.undoPropagateButton.enabled and "taken out" in ui.propagateStatusLabel.text


def test_cancel_within_two_seconds_leaves_the_scene_as_it_was(
    module: OpenModule, carried: SimpleNamespace
) -> None:
    before = names()
    module.click("propagateButton")
    assert module.logic.running.kind == "propagation"
    module.waitUntil(lambda: module.ui.cancelPropagateButton.visible)
    start = time.monotonic()
    module.click("cancelPropagateButton")
    module.waitForTheRun(10)
    assert time.monotonic() - start < 3  # two seconds, and what a busy machine adds
    assert names() == before
    assert module.ui.propagateStatusLabel.text == "Cancelled; nothing was changed."
    assert rows(module)["Structures"][0], "what was not carried stays ticked"


def test_the_list_follows_the_scene_and_the_direction(
    module: OpenModule, carried: SimpleNamespace
) -> None:
    module.pick("propagateDirectionCombo", "Fixed volume → moving volume")
    assert rows(module)["Structures"] == (False, "Segmentation")
    module.click("propagateAllButton")
    assert all(ticked for ticked, _ in rows(module).values())
    module.click("propagateNoneButton")
    assert not any(ticked for ticked, _ in rows(module).values())
    module.pick("propagateDirectionCombo", "Moving volume → fixed volume")
    assert rows(module)["Structures"][0], "each direction has its own ticks"
    carried.points.SetName("Landmarks")
    slicer.mrmlScene.RemoveNode(carried.dose)
    module.waitUntil(lambda: set(rows(module)) == {"Structures", "Landmarks"}, 3)
    module.ui.propagateSection.collapsed = True
    slicer.mrmlScene.RemoveNode(carried.points)
    module.openSection("propagateSection")
    assert set(rows(module)) == {"Structures"}


def test_a_closed_scene_is_forgotten(module: OpenModule, carried: SimpleNamespace) -> None:
    tick(module, "Marks")
    slicer.mrmlScene.Clear(0)
    module.processEvents()
    module.widget.enter()
    module.processEvents()
    assert rows(module) == {}
    assert not module.ui.propagateButton.enabled


def test_from_the_console_back_to_the_moving_volume(
    module: OpenModule, carried: SimpleNamespace
) -> None:
    transform = module.parameters.propagateTransform
    volumes = {"fixedVolume": carried.fixed, "movingVolume": carried.moving}
    (new,) = module.logic.propagate(carried.points, transform, back=True, **volumes)
    np.testing.assert_allclose(
        new.GetNthControlPointPositionWorld(0), np.add([3, 2, 1], SHIFT), atol=1e-6
    )
    assert new.GetName() == "Marks on Old CT"
