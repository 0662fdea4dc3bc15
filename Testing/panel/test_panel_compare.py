"""The section Compare, by clicks and keys: every way, live settings, reset, and what ends it.

Widgets are stand-ins (see Testing/slicer_harness); scene, layers and logics are real.
"""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from driving import OpenModule
from PySide6 import QtCore, QtTest

from GlideRegScene.compare.modes import Mode
from slicer_harness.scene import SceneHarness

BUTTONS = {
    Mode.FADE: "Fade",
    Mode.ROCK: "Rock",
    Mode.FLICKER: "Flicker",
    Mode.CHECKERBOARD: "Checkerboard",
    Mode.SPLIT: "Split",
    Mode.RED_CYAN: "RedCyan",
    Mode.DIFFERENCE: "Difference",
}


def volume(value: int, name: str) -> object:
    array = np.full((8, 8, 8), value, np.int16)
    node = slicer.util.addVolumeFromArray(array, np.diag([8.0, 8.0, 8.0, 1.0]), name=name)
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def compare(module: OpenModule, scene: SceneHarness) -> OpenModule:
    """The section, opened, with a fixed and a moving volume and the axial view's logic."""
    sliceNode = scene.scene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(scene.application)
    logic.SetMRMLScene(scene.scene)
    logic.SetSliceNode(sliceNode)
    logic.ResizeSliceNode(60, 50)
    scene.application.GetSliceLogics() or scene.application.SetSliceLogics(vtkCollection())
    scene.application.GetSliceLogics().AddItem(logic)
    module.ui.fixedVolumeSelector.setCurrentNode(volume(10, "A"))
    module.ui.movingVolumeSelector.setCurrentNode(volume(90, "B"))
    module.openSection("compareSection")
    return module


def vtkCollection() -> object:
    import vtk

    return vtk.vtkCollection()


def composite(name: str = "Red") -> object:
    return slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")


def names() -> tuple[str, str]:
    """Names of the two layers of the axial view."""
    ids = (composite().GetBackgroundVolumeID(), composite().GetForegroundVolumeID())
    nodes = [slicer.mrmlScene.GetNodeByID(i) if i else None for i in ids]
    return tuple(node.GetName() if node is not None else "" for node in nodes)


def press(module: OpenModule, mode: Mode) -> None:
    module.click(f"compare{BUTTONS[mode]}Button")


def pressed(module: OpenModule) -> list[Mode]:
    return [m for m, n in BUTTONS.items() if getattr(module.ui, f"compare{n}Button").checked]


def seen(module: OpenModule) -> set[str]:
    every = ("Opacity", "Period", "Tile", "Split", "Range")
    found = {name for name in every if getattr(module.ui, f"compare{name}Slider").visible}
    checks = ("Horizontal", "Follow", "Swap")
    return found | {name for name in checks if getattr(module.ui, f"compare{name}Check").visible}


def nodeIds() -> list[str]:
    scene = slicer.mrmlScene
    return [scene.GetNthNode(k).GetID() for k in range(scene.GetNumberOfNodes())]


def test_without_two_volumes_it_says_what_is_missing(module: OpenModule) -> None:
    module.openSection("compareSection")
    assert not module.ui.compareFadeButton.enabled
    assert "Choose two volumes" in module.ui.compareLegend.text
    assert seen(module) == set()


def test_every_way_is_one_click_and_shows_only_its_own_settings(compare: OpenModule) -> None:
    before = nodeIds()
    settings = {
        Mode.FADE: {"Opacity"},
        Mode.ROCK: {"Period"},
        Mode.FLICKER: {"Period"},
        Mode.CHECKERBOARD: {"Tile", "Swap"},
        Mode.SPLIT: {"Split", "Horizontal", "Follow", "Swap"},
        Mode.RED_CYAN: {"Swap"},
        Mode.DIFFERENCE: {"Range", "Swap"},
    }
    for mode, expected in settings.items():
        press(compare, mode)
        assert pressed(compare) == [mode] and seen(compare) == expected
        first, second = names()
        assert first == "A" and "B" in second
        assert "<b>A</b>" in compare.ui.compareLegend.text
    press(compare, Mode.DIFFERENCE)  # pressed again: it ends
    assert pressed(compare) == [] and seen(compare) == set()
    assert names() == ("", "") and nodeIds() == before


def test_sliders_act_at_once(compare: OpenModule) -> None:
    press(compare, Mode.FADE)
    compare.ui.compareOpacitySlider.value = 20
    assert composite().GetForegroundOpacity() == pytest.approx(0.2)
    press(compare, Mode.CHECKERBOARD)
    comparison = compare.panel.compare._comparison
    compare.ui.compareTileSlider.value = 12
    assert comparison.options.tileMm == 12
    logic = slicer.app.applicationLogic().GetSliceLogics().GetItemAsObject(0)
    assert logic.GetBlend().GetStencil() is not None
    press(compare, Mode.DIFFERENCE)
    compare.ui.compareRangeSlider.value = 80
    shown = slicer.mrmlScene.GetNodeByID(composite().GetForegroundVolumeID())
    assert shown.GetDisplayNode().GetWindow() == 160
    assert slicer.util.arrayFromVolume(shown).max() == -80  # 10 - 90
    compare.click("compareSwapCheck")
    assert slicer.util.arrayFromVolume(shown).max() == 80
    assert compare.parameters.compareSwapped is True


def test_arrow_keys_move_the_line_and_the_space_bar_presses(compare: OpenModule) -> None:
    compare.ui.compareSplitButton.setFocus()
    QtTest.QTest.keyClick(compare.ui.compareSplitButton, QtCore.Qt.Key.Key_Space)
    assert compare.panel.compare.mode is Mode.SPLIT
    assert compare.panel.compare._comparison.options.split == 0.5
    box = compare.ui.compareSplitSlider._box
    QtTest.QTest.keyClick(box, QtCore.Qt.Key.Key_Up)
    assert compare.panel.compare._comparison.options.split == pytest.approx(0.51)


def test_the_line_follows_the_mouse_only_when_asked(compare: OpenModule) -> None:
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetSingletonTag("default")
    crosshair = slicer.mrmlScene.AddNode(crosshair)
    press(compare, Mode.SPLIT)
    comparison = compare.panel.compare._comparison
    crosshair.SetCursorPositionRAS([5.0, 6.0, 7.0])
    assert comparison.options.through is None
    compare.click("compareFollowCheck")
    crosshair.SetCursorPositionRAS([1.0, 2.0, 3.0])
    assert comparison.options.through == (1.0, 2.0, 3.0)
    assert not compare.ui.compareSplitSlider.enabled
    compare.click("compareFollowCheck")
    assert comparison.options.through is None


def test_rocking_and_flickering_move_and_stand_when_the_module_is_left(
    compare: OpenModule,
) -> None:
    section = compare.panel.compare
    compare.ui.comparePeriodSlider.value = 0.2
    for mode in (Mode.ROCK, Mode.FLICKER):
        press(compare, mode)
        opacities = set()

        def moved(opacities: set = opacities, mode: Mode = mode) -> bool:
            opacities.add(round(composite().GetForegroundOpacity(), 3))
            return len(opacities) >= (2 if mode is Mode.FLICKER else 4)

        compare.waitUntil(moved, 5)
        assert mode is Mode.ROCK or opacities <= {0.0, 1.0}
    compare.widget.exit()
    assert not section.isMoving and composite().GetForegroundOpacity() == 0.5
    compare.widget.enter()
    assert section.isMoving and pressed(compare) == [Mode.FLICKER]
    press(compare, Mode.FADE)
    assert not section.isMoving


def test_reset_brings_back_what_the_views_showed(compare: OpenModule) -> None:
    other = volume(50, "other")
    composite().SetBackgroundVolumeID(other.GetID())
    composite().SetForegroundOpacity(0.3)
    before = nodeIds()
    for mode in BUTTONS:
        press(compare, mode)
    press(compare, Mode.RED_CYAN)
    compare.click("compareResetButton")
    assert names() == ("other", "") and composite().GetForegroundOpacity() == 0.3
    assert nodeIds() == before and not compare.ui.compareResetButton.enabled


def test_other_volumes_are_taken_over_while_it_is_shown(compare: OpenModule) -> None:
    press(compare, Mode.RED_CYAN)
    other = volume(50, "other")
    compare.ui.compareSecondSelector.setCurrentNode(other)
    assert compare.panel.compare.mode is Mode.RED_CYAN
    assert "other" in names()[1] and "<b>other</b>" in compare.ui.compareLegend.text
    compare.ui.compareSecondSelector.setCurrentNode(compare.parameters.fixedVolume)
    assert compare.panel.compare.mode is None  # twice the same volume
    assert "same volume" in compare.ui.compareLegend.text


def test_fading_in_a_slice_view_moves_the_slider(compare: OpenModule) -> None:
    press(compare, Mode.FADE)
    composite().SetForegroundOpacity(0.9)
    assert compare.ui.compareOpacitySlider.value == pytest.approx(90)
    assert composite("Green").GetForegroundOpacity() == pytest.approx(0.9)  # linked


def test_a_closed_scene_ends_it(compare: OpenModule) -> None:
    for mode in (Mode.FLICKER, Mode.SPLIT, Mode.DIFFERENCE):
        compare.ui.fixedVolumeSelector.setCurrentNode(volume(10, "A"))
        compare.ui.movingVolumeSelector.setCurrentNode(volume(90, "B"))
        press(compare, mode)
        assert compare.panel.compare.mode is mode
        slicer.mrmlScene.Clear(0)
        compare.processEvents()
        assert compare.panel.compare.mode is None and not compare.panel.compare.isMoving
        assert pressed(compare) == []


def test_a_run_remembers_the_views_as_before_the_comparison(compare: OpenModule) -> None:
    composite().SetBackgroundVolumeID(volume(50, "other").GetID())
    press(compare, Mode.DIFFERENCE)
    compare.panel._rememberViews()  # as a run does when it starts
    composite().SetForegroundVolumeID(compare.parameters.movingVolume.GetID())  # its result comes
    assert compare.panel.compare.mode is None
    compare.panel.display._before.restore(slicer.mrmlScene)
    assert names() == ("other", "")


def test_a_closed_module_leaves_the_views_as_they_were(compare: OpenModule) -> None:
    before = nodeIds()
    press(compare, Mode.DIFFERENCE)
    compare.panel.close()
    assert names() == ("", "") and nodeIds() == before


# --- deformation ----------------------------------------------------------------------------------


def pushing() -> object:
    """A linear transform of 5 mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "push")
    matrix = np.eye(4)
    matrix[0, 3] = 5.0
    import vtk

    vtkMatrix = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(vtkMatrix, matrix)
    node.SetMatrixTransformToParent(vtkMatrix)
    return node


def test_the_deformation_of_any_transform_is_drawn_and_changed_live(compare: OpenModule) -> None:
    assert not compare.ui.drawing2DCheck.enabled
    node = pushing()
    compare.ui.drawingTransformSelector.setCurrentNode(node)
    compare.pick("drawingModeCombo", "Arrows")
    compare.click("drawing2DCheck")
    shown = node.GetDisplayNode()
    assert shown.GetVisibility2D() and not shown.GetVisibility3D()
    assert shown.GetVisualizationMode() == shown.VIS_MODE_GLYPH
    compare.ui.drawingSpacingSlider.value = 20
    compare.ui.drawingScaleSlider.value = 300
    assert (shown.GetGlyphSpacingMm(), shown.GetGlyphScalePercent()) == (20, 300)
    assert "3 times" in compare.ui.drawingInfo.text
    compare.click("drawingFitButton")
    assert (shown.GetGlyphSpacingMm(), shown.GetGlyphScalePercent()) == (12, 100)
    assert "5.0 mm" in compare.ui.drawingInfo.text
    shown.SetVisibility2D(False)  # by somebody else
    assert not compare.ui.drawing2DCheck.checked


def test_contour_levels_are_typed_and_wrong_ones_are_told(compare: OpenModule) -> None:
    node = pushing()
    compare.ui.drawingTransformSelector.setCurrentNode(node)
    compare.pick("drawingModeCombo", "Contours")
    assert compare.ui.drawingLevelsEdit.visible and not compare.ui.drawingScaleSlider.visible
    edit = compare.ui.drawingLevelsEdit
    edit.text = "4, 2"
    QtTest.QTest.keyClick(edit, QtCore.Qt.Key.Key_Return)
    assert node.GetDisplayNode().GetContourLevelsMmAsString().split() == ["2", "4"]
    edit.text = "much"
    QtTest.QTest.keyClick(edit, QtCore.Qt.Key.Key_Return)
    assert "for example: 2 5 10" in compare.ui.drawingInfo.text and edit.text == "2 4"
