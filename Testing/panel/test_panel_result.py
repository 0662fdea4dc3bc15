"""After a run: measures, display, restoring, all on a real result that was saved and loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import slicer
from driving import FinishedRun, OpenModule

from GlideRegScene import results, transforms


def _composites() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def _name(identifier: str | None) -> str | None:
    return slicer.mrmlScene.GetNodeByID(identifier).GetName() if identifier else None


def _layers() -> list[tuple[Any, Any, float]]:
    """Background, foreground and opacity of every slice view, by names."""
    return [
        (
            _name(node.GetBackgroundVolumeID()),
            _name(node.GetForegroundVolumeID()),
            round(node.GetForegroundOpacity(), 2),
        )
        for node in _composites()
    ]


def test_the_measures_are_the_same_after_saving_and_loading(
    finished: OpenModule, finishedRun: FinishedRun
) -> None:
    assert finished.ui.resultContents.visible and not finished.ui.resultHint.visible
    assert finished.resultTexts() == finishedRun.resultTexts


def test_without_the_table_the_measures_come_from_the_transform(
    finished: OpenModule, finishedRun: FinishedRun
) -> None:
    transform = finished.panel.result.transform
    slicer.mrmlScene.RemoveNode(transform.GetNodeReference(results.TABLE_ROLE))
    finished.panel.refresh()
    assert finished.ui.treMeanValue.text == finishedRun.resultTexts["treMean"]
    assert not finished.ui.worstButton.visible and not finished.ui.tableButton.visible


def test_a_transform_of_somebody_else_has_no_result(finished: OpenModule) -> None:
    ours = finished.parameters.transform
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Other")
    finished.parameters.transform = other
    assert finished.ui.resultHint.visible and not finished.ui.resultContents.visible
    assert not finished.ui.afterButton.enabled and not finished.ui.restoreButton.enabled
    finished.parameters.transform = ours
    assert finished.ui.resultContents.visible and finished.ui.afterButton.enabled
    ours.SetAttribute(transforms.ATTRIBUTE, "damaged")
    finished.panel.refresh()
    assert finished.ui.resultHint.visible, "a damaged attribute is no reason to fail"


def test_jump_to_worst_centers_the_views_on_it(finished: OpenModule) -> None:
    finished.click("worstButton")
    for name in ("Red", "Yellow", "Green"):
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
        center = [round(node.GetSliceToRAS().GetElement(k, 3), 3) for k in range(3)]
        assert center == [0, 45, 20], "landmark C"


def test_table_and_plot_are_brought_into_view(finished: OpenModule) -> None:
    layouts: list[int] = []
    slicer.app.layout_manager = SimpleNamespace(setLayout=layouts.append)
    try:
        finished.click("tableButton")
    finally:
        slicer.app.layout_manager = None
    transform = finished.panel.result.transform
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert layouts == [slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView]
    assert selection.GetActiveTableID() == transform.GetNodeReferenceID(results.TABLE_ROLE)
    assert selection.GetActivePlotChartID() == transform.GetNodeReferenceID(results.PLOT_ROLE)


def test_before_and_after_change_what_lies_over_the_fixed_volume(finished: OpenModule) -> None:
    finished.click("beforeButton")
    assert _layers() == [("Fixed", "Moving", 0.5)] * 3
    assert finished.ui.beforeButton.checked and not finished.ui.afterButton.checked
    finished.click("afterButton")
    assert _layers() == [("Fixed", "Moving warped to Fixed", 0.5)] * 3
    assert finished.ui.afterButton.checked and not finished.ui.beforeButton.checked
    finished.click("afterButton")
    assert finished.ui.afterButton.checked, "a click on the chosen one must not release it"


def test_the_fade_slider_fades_and_the_toggle_keeps_it(finished: OpenModule) -> None:
    finished.click("afterButton")
    finished.ui.fadeSlider.value = 80
    assert {opacity for _, _, opacity in _layers()} == {0.8}
    finished.click("beforeButton")
    assert _layers() == [("Fixed", "Moving", 0.8)] * 3


def test_the_display_section_follows_the_views(finished: OpenModule) -> None:
    finished.click("afterButton")
    for node in _composites():
        node.SetForegroundOpacity(0.25)
        node.SetForegroundVolumeID(finished.parameters.movingVolume.GetID())
    assert finished.ui.fadeSlider.value == 25
    assert finished.ui.beforeButton.checked and not finished.ui.afterButton.checked
    for node in _composites():
        node.SetForegroundVolumeID(None)
    assert not finished.ui.beforeButton.checked and not finished.ui.afterButton.checked


def test_the_deformation_is_drawn_as_chosen(finished: OpenModule) -> None:
    ui, transform = finished.ui, finished.panel.result.transform
    assert not ui.deformation2DCheck.checked and not ui.deformation3DCheck.checked
    finished.click("deformation2DCheck")
    display = transform.GetDisplayNode()
    shown = (display.GetVisibility(), display.GetVisibility2D(), display.GetVisibility3D())
    assert [bool(value) for value in shown] == [True, True, False]
    assert display.GetVisualizationMode() == display.VIS_MODE_GRID
    finished.pick("deformationCombo", "Arrows")
    finished.click("deformation3DCheck")
    assert display.GetVisualizationMode() == display.VIS_MODE_GLYPH and display.GetVisibility3D()
    display.SetVisualizationMode(display.VIS_MODE_CONTOUR)
    display.SetVisibility2D(False)
    assert ui.deformationCombo.currentText == "Contours" and not ui.deformation2DCheck.checked
    assert ui.deformation3DCheck.checked


def test_the_jacobian_overlay_has_its_legend(finished: OpenModule) -> None:
    finished.click("afterButton")
    assert not finished.ui.jacobianLegend.visible
    finished.click("jacobianCheck")
    transform = finished.panel.result.transform
    jacobian = transform.GetNodeReference(results.JACOBIAN_ROLE)
    assert _layers()[0][:2] == ("Fixed", jacobian.GetName())
    assert finished.ui.jacobianLegend.visible and not finished.ui.afterButton.checked
    finished.click("jacobianCheck")
    assert _layers()[0][1] == "Moving warped to Fixed" and finished.ui.afterButton.checked


def test_the_legend_names_the_colors_as_they_are(finished: OpenModule) -> None:
    jacobian = finished.panel.result.transform.GetNodeReference(results.JACOBIAN_ROLE)
    display = jacobian.GetDisplayNode()
    colors = display.GetColorNode()
    last = colors.GetNumberOfColors() - 1

    def color(index: int) -> list[float]:
        rgba = [0.0] * 4
        colors.GetColor(index, rgba)
        return rgba[:3]

    least, most = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    one = round((1 - least) / (most - least) * last)
    folded, low, middle, high = (color(index) for index in (0, 1, one, last))
    assert folded == [1, 0, 1], "magenta"
    assert max(low) == low[2] and max(high) == high[0], "blue is low, red is high"
    assert min(middle) > 0.9, "white is no change"
    text = finished.ui.jacobianLegend.text
    assert text.index("blue") < text.index("below 1") < text.index("red") < text.index("above 1")
    assert "magenta</span>: folded" in text


def test_restore_unregistered_brings_the_views_back(module: OpenModule, pair: Any) -> None:
    for node in _composites():
        node.SetBackgroundVolumeID(pair.moving.GetID())
        node.SetForegroundOpacity(0.1)
    before = _layers()
    module.choose(pair, landmarks=False)
    module.click("applyButton")
    module.waitForTheRun()
    assert _layers() == [("Fixed", "Moving warped to Fixed", 0.5)] * 3
    assert not module.ui.treMeanValue.visible and not module.ui.worstButton.visible
    transform = module.panel.result.transform
    pair.moving.SetAndObserveTransformNodeID(transform.GetID())
    module.click("deformation2DCheck")
    module.click("restoreButton")
    assert _layers() == before
    assert pair.moving.GetTransformNodeID() is None
    assert not transform.GetDisplayNode().GetVisibility2D()
    assert not module.ui.deformation2DCheck.checked and not module.ui.afterButton.checked
    assert module.panel.result.transform is transform, "results stay in the scene"


def test_restore_after_loading_shows_the_moving_volume_as_it_was(finished: OpenModule) -> None:
    finished.click("restoreButton")
    assert _layers() == [("Fixed", "Moving", 0.5)] * 3
    assert finished.ui.beforeButton.checked


def test_another_patient_gets_outputs_of_its_own(finished: OpenModule) -> None:
    from GlideRegScene.self_test import makeShiftedPair

    first = finished.parameters.transform
    other, _, _ = makeShiftedPair()
    finished.ui.fixedVolumeSelector.setCurrentNode(other)
    finished.processEvents()
    assert finished.parameters.transform is None
    assert finished.parameters.warpedVolume is None
    assert finished.ui.transformSelector.currentNode() is None
    assert first.GetScene() is not None  # the first patient's result stays
