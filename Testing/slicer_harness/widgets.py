"""Stand-ins (tests only, not shipped) for the CTK widgets that GlideReg's panel uses.

They have the properties, signals and methods that a panel touches, and look enough like Slicer's
for a picture of the panel.
"""

# ruff: noqa: N801

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from .mrml_widgets import qMRMLNodeComboBox, qMRMLWidget, row, stored
from .pythonqt import qt

Property, Signal = QtCore.Property, QtCore.Signal
_HEADER = 24


class ctkCollapsibleButton(qt.QAbstractButton):
    """A header with an arrow and a title; what is inside is hidden while collapsed."""

    _stand_in = True
    contentsCollapsed = Signal(bool)

    def __init__(self, text: Any = "", parent: Any = None) -> None:
        super().__init__(parent if isinstance(text, str) else text)
        self.text = text if isinstance(text, str) else ""
        self._collapsed, self._hidden = False, []
        self.setContentsMargins(4, _HEADER + 4, 4, 4)
        fixed = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(fixed.Preferred, fixed.Minimum)
        self.clicked.connect(lambda: self._collapse(not self._collapsed))

    collapsed = Property(bool, lambda s: s._collapsed, lambda s, v: s._collapse(v))

    def _collapse(self, collapsed: bool) -> None:
        changed, self._collapsed = collapsed != self._collapsed, collapsed
        self._show_contents()
        if changed:
            self.contentsCollapsed.emit(collapsed)

    def _show_contents(self) -> None:
        inside = QtCore.Qt.FindChildOption.FindDirectChildrenOnly
        if self._collapsed:
            shown = [w for w in self.findChildren(QtWidgets.QWidget, options=inside)]
            shown = [widget for widget in shown if not widget.isHidden()]
            self._hidden += shown
            for widget in shown:
                widget.hide()
        else:
            for widget in self._hidden:
                widget.show()
            self._hidden = []
        self.setMaximumHeight(_HEADER if self._collapsed else 16777215)
        self.update()

    _after_loading = _show_contents

    def hitButton(self, position: Any) -> bool:
        return position.y() < _HEADER

    def sizeHint(self) -> Any:
        layout = self.layout()
        return layout.totalSizeHint() if layout and not self._collapsed else self._header_size()

    minimumSizeHint = sizeHint

    def _header_size(self) -> Any:
        return QtCore.QSize(40 + self.fontMetrics().horizontalAdvance(self.text), _HEADER)

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        palette, width = self.palette, self.rect.width()
        painter.setPen(palette.mid().color())
        painter.setBrush(palette.button().color().darker(106))
        painter.drawRect(0, 0, width - 1, _HEADER - 1)
        if not self._collapsed:
            painter.setBrush(QtCore.Qt.BrushStyle.NoBrush)
            painter.drawRect(0, _HEADER - 1, width - 1, self.rect.height() - _HEADER)
        arrow = QtWidgets.QStyleOption()
        arrow.rect, arrow.palette = QtCore.QRect(6, 5, 14, 14), palette
        arrow.state = QtWidgets.QStyle.StateFlag.State_Enabled
        kinds = QtWidgets.QStyle.PrimitiveElement
        kind = kinds.PE_IndicatorArrowRight if self._collapsed else kinds.PE_IndicatorArrowDown
        self.style().drawPrimitive(kind, arrow, painter)
        painter.setPen(palette.buttonText().color())
        title = QtCore.QRect(26, 0, width - 30, _HEADER)
        painter.drawText(title, QtCore.Qt.AlignmentFlag.AlignVCenter, self.text)
        painter.end()


class ctkCollapsibleGroupBox(qt.QGroupBox):
    """A group box whose contents can be hidden."""

    _stand_in = True
    collapsed = Property(bool, lambda s: s.__dict__.get("_gone", False), lambda s, v: s._hide(v))

    def _hide(self, collapsed: bool) -> None:
        self._gone = collapsed
        self._after_loading()

    def _after_loading(self) -> None:
        self.setMaximumHeight(_HEADER if self.collapsed else 16777215)
        for widget in self.findChildren(QtWidgets.QWidget):
            if widget.parent() is self:
                widget.setVisible(not self.collapsed)


class ctkPathLineEdit(qt.QWidget):
    """A path to type, with a button to browse for it."""

    _stand_in = True
    Dirs, Files, Drives, NoSymLinks, AllDirs, Readable, Writable = 1, 2, 4, 8, 1024, 16, 32
    Executable, Hidden, System, NoDot, NoDotDot, NoDotAndDotDot = 64, 256, 512, 8192, 16384, 24576
    currentPathChanged, validInputChanged = Signal(str), Signal(bool)
    filters, nameFilters = stored(int, "filters", 0), stored("QStringList", "names", [])
    settingKey, showHistoryButton = stored(str, "key", ""), stored(bool, "history", True)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._line, self._button = QtWidgets.QLineEdit(self), QtWidgets.QToolButton(self)
        self._button.setText("…")
        row(self, self._line, self._button)
        self._line.textChanged.connect(self.currentPathChanged)
        self._button.clicked.connect(self._browse)

    currentPath = Property(
        str, lambda s: s._line.text(), lambda s, v: s._line.setText(v), notify=currentPathChanged
    )
    showBrowseButton = Property(
        bool, lambda s: not s._button.isHidden(), lambda s, v: s._button.setVisible(v)
    )

    def _browse(self) -> None:
        self.currentPath = qt.QFileDialog.getOpenFileName(self, "Path") or self.currentPath


class ctkSliderWidget(qt.QWidget):
    """A slider and a spin box that hold one number."""

    _stand_in = True
    valueChanged, valueIsChanging = Signal(float), Signal(float)
    tracking, pageStep = stored(bool, "tracking", True), stored(float, "page", 10.0)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        self._slider.setRange(0, 1000)
        row(self, self._slider, self._box)
        self._box.valueChanged.connect(self._box_changed)
        self._slider.sliderMoved.connect(self._slider_moved)

    def _spin_property(kind: Any, name: str) -> Any:  # noqa: N805
        def write(self: Any, value: Any) -> None:
            getattr(self._box, f"set{name[0].upper()}{name[1:]}")(value)
            self._place_slider()

        return Property(kind, lambda self: getattr(self._box, name)(), write)

    minimum, maximum = _spin_property(float, "minimum"), _spin_property(float, "maximum")
    value, singleStep = _spin_property(float, "value"), _spin_property(float, "singleStep")
    decimals, suffix = _spin_property(int, "decimals"), _spin_property(str, "suffix")
    prefix = _spin_property(str, "prefix")

    def setValue(self, value: float) -> None:
        self.value = value

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def _place_slider(self) -> None:
        span = self.maximum - self.minimum
        self._slider.setValue(round(1000 * (self.value - self.minimum) / span) if span else 0)

    def _box_changed(self, value: float) -> None:
        self._place_slider()
        self.valueChanged.emit(value)

    def _slider_moved(self, position: int) -> None:
        self.value = self.minimum + position / 1000 * (self.maximum - self.minimum)


class ctkDoubleSpinBox(qt.QDoubleSpinBox):
    """CTK's spin box, of which a panel uses what Qt's has."""

    _stand_in = True


class ctkComboBox(qt.QComboBox):
    """CTK's combo box, of which a panel uses what Qt's has."""

    _stand_in = True


class ctkCheckBox(qt.QCheckBox):
    """CTK's check box, of which a panel uses what Qt's has."""

    _stand_in = True


def add_to(slicer: Any) -> None:
    """Put the qMRML stand-ins on the slicer package (others as classes without instances)."""
    slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = qMRMLWidget, qMRMLNodeComboBox
    for name in ("qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLRangeWidget"):
        setattr(slicer, name, type(name, (), {}))
