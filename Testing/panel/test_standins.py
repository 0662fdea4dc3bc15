"""The stand-ins behave as Slicer's own: a small panel from a real `.ui`, on a real scene.

With GLIDEREG_SLICER_SOURCES set, the same tests run with Slicer's own parameterNodeWrapper.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import ctk
import pytest
import qt
import slicer
from PySide6 import QtCore, QtTest, QtWidgets
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from slicer_harness.slicer_parts import dialogs, installer


class Speed(enum.Enum):
    STANDARD = "standard"
    FAST = "fast"


@parameterNodeWrapper
class SmallParameters:
    fixed: slicer.vtkMRMLScalarVolumeNode
    moving: slicer.vtkMRMLScalarVolumeNode | None
    masked: bool = True
    rounds: Annotated[int, WithinRange(1, 50)] = 8
    weight: Annotated[float, WithinRange(0, 4), Default(0.5)]
    region: Annotated[str, Choice(["lung", "abdomen"])] = "lung"
    speed: Speed = Speed.FAST
    label: str
    folder: Path


class SmallLogic(ScriptedLoadableModuleLogic):
    pass


def _item(kind: str, name: str, parameter: str = "", more: str = "") -> str:
    told = (
        f'<property name="SlicerParameterName" stdset="0"><string>{parameter}</string></property>'
    )
    told = told if parameter else ""
    return f'<item><widget class="{kind}" name="{name}">{told}{more}</widget></item>'


def _property(name: str, value: str) -> str:
    return f'<property name="{name}">{value}</property>'


_SELECTOR = _property(
    "nodeTypes", "<stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist>"
) + _property("noneEnabled", "<bool>true</bool>")
_INSIDE = "".join(
    (
        _item("qMRMLNodeComboBox", "fixedSelector", "fixed", _SELECTOR),
        _item("qMRMLNodeComboBox", "strangerSelector", "", _SELECTOR),
        _item("QCheckBox", "maskedBox", "masked", _property("text", "<string>Mask</string>")),
        _item("QSpinBox", "roundsBox", "rounds"),
        _item("ctkSliderWidget", "weightSlider", "weight"),
        _item("QComboBox", "regionBox", "region"),
        _item("QComboBox", "speedBox", "speed"),
        _item("QLineEdit", "labelEdit", "label"),
        _item(
            "ctkPathLineEdit",
            "folderEdit",
            "folder",
            _property("filters", "<set>ctkPathLineEdit::Dirs|ctkPathLineEdit::NoDot</set>"),
        ),
        _item("QPushButton", "applyButton", "", _property("text", "<string>Apply</string>")),
        _item("QLabel", "statusLabel"),
    )
)
_UI = f"""<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Small</class><widget class="qMRMLWidget" name="Small">
<layout class="QVBoxLayout" name="rows"><item>
<widget class="ctkCollapsibleButton" name="inputs">{_property("text", "<string>Inputs</string>")}
<layout class="QVBoxLayout" name="inside">{_INSIDE}</layout></widget></item><item>
<widget class="ctkCollapsibleButton" name="advanced">
{_property("text", "<string>Advanced</string>")}{_property("collapsed", "<bool>true</bool>")}
<layout class="QVBoxLayout" name="inside2">{_item("QLabel", "hint")}</layout></widget></item>
</layout></widget>
<customwidgets><customwidget><class>qMRMLWidget</class><extends>QWidget</extends>
<header>qMRMLWidget.h</header><container>1</container></customwidget></customwidgets>
<connections><connection><sender>Small</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>fixedSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>
<connection><sender>maskedBox</sender><signal>toggled(bool)</signal>
<receiver>weightSlider</receiver><slot>setEnabled(bool)</slot></connection></connections></ui>"""


@pytest.fixture
def panel(scene: Any, tmp_path: Path) -> Iterator[Any]:
    """The widget from the `.ui` with the scene, its children in `panel.ui`, and its parameters."""
    (tmp_path / "small.ui").write_text(_UI, encoding="utf-8")
    widget = slicer.util.loadUI(str(tmp_path / "small.ui"))
    widget.setMRMLScene(slicer.mrmlScene)
    ui = slicer.util.childWidgetVariables(widget)
    parameters = SmallParameters(SmallLogic().getParameterNode())
    tag = parameters.connectGui(ui)
    widget.show()
    slicer.app.processEvents()
    yield SimpleNamespace(widget=widget, ui=ui, parameters=parameters, tag=tag)
    parameters.disconnectGui(tag)
    widget.setMRMLScene(None)
    widget.deleteLater()


def _volume(name: str) -> Any:
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)


def _entries(selector: Any) -> list[str]:
    combo = selector.findChildren(qt.QComboBox)[0]
    return [combo.itemText(i) for i in range(combo.count())]


def _pick(selector: Any, text: str) -> None:
    """Choose an entry as a user does, through the list that drops down."""
    combo = selector.findChildren(qt.QComboBox)[0]
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex())


def test_a_node_added_to_the_scene_appears_and_can_be_picked(panel: Any) -> None:
    node = _volume("CT inspiration")
    _pick(panel.ui.fixedSelector, "CT inspiration")
    assert panel.parameters.fixed is node


def test_a_renamed_node_shows_its_new_name_and_a_deleted_one_is_gone(panel: Any) -> None:
    node = _volume("CT")
    panel.ui.fixedSelector.setCurrentNode(node)
    node.SetName("CT, deep breath")
    assert "CT, deep breath" in _entries(panel.ui.fixedSelector)
    slicer.mrmlScene.RemoveNode(node)
    assert panel.ui.fixedSelector.currentNode() is None
    assert panel.parameters.fixed is None


def test_hidden_nodes_are_listed_only_on_request(panel: Any) -> None:
    _volume("secret").SetHideFromEditors(True)
    panel.ui.fixedSelector.showHidden = False
    assert "secret" not in _entries(panel.ui.fixedSelector)
    panel.ui.fixedSelector.showHidden = True
    assert "secret" in _entries(panel.ui.fixedSelector)


def test_without_none_the_first_node_is_chosen(panel: Any) -> None:
    panel.ui.fixedSelector.noneEnabled = False
    node = _volume("only one")
    assert panel.ui.fixedSelector.currentNode() is node


def test_a_user_makes_a_new_node_in_the_selector(panel: Any) -> None:
    panel.ui.fixedSelector.baseName = "warped"
    create = next(e for e in _entries(panel.ui.fixedSelector) if e.startswith("Create new"))
    _pick(panel.ui.fixedSelector, create)
    assert panel.parameters.fixed.GetName() == "warped"


def test_a_selector_that_the_ui_does_not_connect_gets_no_scene(panel: Any) -> None:
    assert panel.ui.strangerSelector.mrmlScene() is None
    assert not panel.ui.strangerSelector.enabled


def test_clicks_reach_the_parameter_node(panel: Any) -> None:
    QtTest.QTest.mouseClick(
        panel.ui.maskedBox, QtCore.Qt.MouseButton.LeftButton, pos=QtCore.QPoint(8, 8)
    )
    panel.ui.roundsBox.value = 12
    panel.ui.weightSlider.value = 1.25
    panel.ui.regionBox.currentText = "abdomen"
    panel.ui.regionBox.setCurrentIndex(1)
    panel.ui.speedBox.setCurrentIndex(0)
    QtTest.QTest.keyClicks(panel.ui.labelEdit, "first try")
    panel.ui.folderEdit.currentPath = "/data/out"
    got = panel.parameters
    assert (got.masked, got.rounds, got.weight) == (False, 12, 1.25)
    assert (got.region, got.speed) == ("abdomen", Speed.STANDARD)
    assert (got.label, got.folder) == ("first try", Path("/data/out"))


def test_parameters_reach_the_widgets(panel: Any) -> None:
    assert panel.ui.roundsBox.value == 8
    assert panel.ui.speedBox.currentText == "FAST"
    panel.parameters.rounds = 20
    panel.parameters.speed = Speed.STANDARD
    panel.parameters.label = "second"
    panel.parameters.fixed = _volume("MR")
    assert panel.ui.roundsBox.value == 20
    assert panel.ui.speedBox.currentText == "STANDARD"
    assert panel.ui.labelEdit.text == "second"
    assert panel.ui.fixedSelector.currentNode().GetName() == "MR"


def test_a_disconnected_panel_changes_nothing(panel: Any) -> None:
    panel.parameters.disconnectGui(panel.tag)
    panel.ui.roundsBox.value = 33
    assert panel.parameters.rounds == 8


def test_parameters_are_stored_as_slicer_stores_them(scene: Any) -> None:
    node = SmallLogic().getParameterNode()
    parameters = SmallParameters(node)
    parameters.fixed = parameters.moving = _volume("CT")
    stored = {name: node.GetParameter(name) for name in sorted(node.GetParameterNames())}
    assert stored == {
        "fixed": "",
        "folder": ".",
        "label": "",
        "masked": "True",
        "moving.0": "",
        "region": "lung",
        "rounds": "8",
        "speed": "FAST",
        "weight": "0.5",
    }
    assert node.GetNodeReference("fixed") is node.GetNodeReference("moving.0") is parameters.moving
    assert SmallLogic().getParameterNode() is node


def test_values_out_of_range_are_refused(scene: Any) -> None:
    parameters = SmallParameters(SmallLogic().getParameterNode())
    for name, value, error in (
        ("rounds", 0, ValueError),
        ("rounds", 2.5, TypeError),
        ("region", "brain", ValueError),
        ("fixed", slicer.vtkMRMLModelNode(), TypeError),
        ("label", None, ValueError),
        ("unheard_of", 1, ValueError),
    ):
        with pytest.raises(error):
            parameters.setValue(name, value)
    assert (parameters.rounds, parameters.region) == (8, "lung")


def test_a_reference_follows_its_node_out_of_the_scene(scene: Any) -> None:
    parameters = SmallParameters(SmallLogic().getParameterNode())
    parameters.fixed = parameters.moving = _volume("CT")
    slicer.mrmlScene.RemoveNode(parameters.fixed)
    assert parameters.fixed is None
    assert parameters.moving is None


def test_a_collapsed_section_hides_what_is_inside(panel: Any) -> None:
    ui = panel.ui
    assert ui.advanced.collapsed and not ui.hint.visible and ui.statusLabel.visible
    QtTest.QTest.mouseClick(
        ui.advanced, QtCore.Qt.MouseButton.LeftButton, pos=QtCore.QPoint(40, 10)
    )
    assert not ui.advanced.collapsed and ui.hint.visible
    ui.inputs.collapsed = True
    assert not ui.statusLabel.visible


def test_properties_are_attributes_and_slots_get_what_they_take(panel: Any) -> None:
    button, label, heard = panel.ui.applyButton, panel.ui.statusLabel, []

    def on_click() -> None:
        heard.append("clicked")

    button.connect("clicked()", on_click)
    button.connect("clicked(bool)", lambda checked: heard.append(checked))
    button.toolTip, label.text, button.enabled = "Starts", "Ready", True
    button.click()
    assert heard == ["clicked", False]
    assert (button.toolTip, label.text, button.name) == ("Starts", "Ready", "applyButton")
    assert button.disconnect("clicked()", on_click)
    button.click()
    assert heard == ["clicked", False, False]
    label.setAlignment(4)
    assert label.alignment == qt.Qt.AlignHCenter


def test_what_pythonqt_does_not_know_is_an_error(panel: Any) -> None:
    with pytest.raises(AttributeError):
        panel.ui.applyButton.txet = "typing error"
    with pytest.raises(ValueError, match="no signal"):
        panel.ui.applyButton.connect("pressed_hard(bool)", print)
    assert isinstance(panel.ui.applyButton, qt.QWidget)
    assert type(panel.ui.folderEdit) is ctk.ctkPathLineEdit


def test_a_connection_in_the_ui_file_works(panel: Any) -> None:
    panel.ui.maskedBox.checked = False
    assert not panel.ui.weightSlider.enabled


def test_a_timer_ticks_and_settings_are_kept(scene: Any) -> None:
    ticks: list[int] = []
    timer = qt.QTimer()
    timer.interval = 1
    timer.connect("timeout()", lambda: ticks.append(1))
    timer.start()
    qt.QTimer.singleShot(1, lambda: ticks.append(2))
    QtTest.QTest.qWait(50)
    timer.stop()
    assert {1, 2} <= set(ticks)
    qt.QSettings().setValue("GlideReg/folder", "/data")
    assert slicer.util.settingsValue("GlideReg/folder", "") == "/data"


def test_nothing_waits_for_a_person_and_nothing_is_installed(scene: Any) -> None:
    dialogs.answers.update({"confirmYesNoDisplay": False, "QFileDialog": "/data/job"})
    slicer.util.errorDisplay("No volumes")
    assert not slicer.util.confirmYesNoDisplay("Overwrite?")
    assert qt.QFileDialog.getExistingDirectory(None, "Output folder") == "/data/job"
    assert qt.QMessageBox.question(None, "GlideReg", "Sure?") == qt.QMessageBox.Ok
    assert dialogs.shown[0] == ("errorDisplay", "No volumes")
    assert slicer.packaging.pip_check("pytest>=1")
    installer.outcome = RuntimeError("declined")
    with pytest.raises(RuntimeError, match="declined"):
        slicer.packaging.pip_ensure(["torch>=2.4"], requester="GlideReg")
    assert installer.calls == [(["torch>=2.4"], {"requester": "GlideReg"})]


def test_a_module_widget_is_built_and_heard(scene: Any, tmp_path: Path) -> None:
    class SmallWidget(ScriptedLoadableModuleWidget):
        def setup(self) -> None:
            super().setup()
            self.button = qt.QPushButton(_("Apply"))
            self.layout.addWidget(self.button)

    slicer.modules.small = SimpleNamespace(path=str(tmp_path / "Small.py"))
    widget = SmallWidget()
    assert widget.resourcePath("UI/Small.ui") == str(tmp_path / "Resources" / "UI" / "Small.ui")
    assert widget.parent.mrmlScene() is slicer.mrmlScene
    assert widget.button.visible and widget.button.text == "Apply"
    assert issubclass(ScriptedLoadableModuleTest, object) and slicer.util.mainWindow() is None
    widget.parent.deleteLater()


def test_a_picture_of_the_panel_is_not_blank(panel: Any, tmp_path: Path) -> None:
    _volume("CT inspiration")
    panel.ui.statusLabel.text = "Ready"
    panel.widget.resize(360, 440)
    slicer.app.processEvents()
    picture = QtWidgets.QWidget.grab(panel.widget)
    assert picture.save(str(tmp_path / "panel.png"))
    image = picture.toImage()
    seen = {image.pixel(x, y) for x in range(0, 360, 3) for y in range(0, 440, 3)}
    assert len(seen) > 20
