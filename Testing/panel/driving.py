"""What a user does in the panel, for the tests: open the module, click, pick, wait."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qt
import slicer
from PySide6 import QtCore, QtTest

LEFT = QtCore.Qt.MouseButton.LeftButton


class ModuleParent(slicer.qMRMLWidget):
    """The widget into which Slicer puts a module's panel."""

    isEntered = True


class OpenModule:
    """GlideReg's real widget, set up as Slicer does it, in a window of its own."""

    def __init__(self) -> None:
        import GlideReg

        slicer.modules.glidereg = SimpleNamespace(path=GlideReg.__file__)
        self.parent = ModuleParent()
        self.parent.setLayout(qt.QVBoxLayout())
        self.parent.layout().setContentsMargins(0, 0, 0, 0)
        self.parent.setMRMLScene(slicer.mrmlScene)
        self.parent.resize(480, 1000)
        self.widget = GlideReg.GlideRegWidget(self.parent)
        self.widget.setup()
        self.parent.show()
        self.processEvents()

    @property
    def panel(self) -> Any:
        return self.widget.panel

    @property
    def ui(self) -> Any:
        return self.widget.panel.ui

    @property
    def parameters(self) -> Any:
        return self.widget.panel.parameters

    @property
    def logic(self) -> Any:
        return self.widget.logic

    def processEvents(self) -> None:
        """Several times: a section that opens is laid out from the inside to the outside."""
        for _ in range(4):
            slicer.app.processEvents()

    def click(self, name: str) -> None:
        """Presses a button or check box with the mouse, as far as it can be pressed."""
        widget = getattr(self.ui, name)
        assert widget.visible, f"{name} cannot be seen"
        QtTest.QTest.mouseClick(widget, LEFT, pos=QtCore.QPoint(8, 8))
        self.processEvents()

    def pick(self, name: str, text: str) -> None:
        """Takes an entry of a list that drops down."""
        widget = getattr(self.ui, name)
        combo = (
            widget if widget.className() == "QComboBox" else widget.findChildren(qt.QComboBox)[0]
        )
        index = combo.findText(text)
        assert index >= 0, f"{name} has no {text}: {entries(combo)}"
        combo.setCurrentIndex(index)
        combo.activated.emit(index)
        self.processEvents()

    def openSection(self, name: str) -> None:
        getattr(self.ui, name).collapsed = False
        self.processEvents()

    def choose(self, pair: Any, landmarks: bool = True) -> None:
        """Fills the panel for a run of a few seconds: fast, without encoder."""
        self.ui.fixedVolumeSelector.setCurrentNode(pair.fixed)
        self.ui.movingVolumeSelector.setCurrentNode(pair.moving)
        if landmarks:
            self.ui.fixedLandmarksSelector.setCurrentNode(pair.fixedPoints)
            self.ui.movingLandmarksSelector.setCurrentNode(pair.movingPoints)
        self.click("fastButton")
        self.parameters.encoder = "none"
        self.processEvents()

    def waitUntil(self, condition: Callable[[], bool], seconds: float = 60.0) -> float:
        """Lets the application live until a condition holds; gives the seconds that it took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < seconds, "waited too long"
            slicer.app.processEvents()
            time.sleep(0.005)
        return time.monotonic() - start

    def waitForTheRun(self, seconds: float = 90.0) -> None:
        self.waitUntil(lambda: self.logic.running is None, seconds)
        self.processEvents()

    def resultTexts(self) -> dict[str, str]:
        """The values of the section Result, by the name of what they measure."""
        names = ("treMean", "treMedian", "worst", "folding", "jacobian", "time", "encoderUsed")
        return {name: getattr(self.ui, f"{name}Value").text for name in names}

    def close(self) -> None:
        self.widget.cleanup()
        self.parent.setMRMLScene(None)
        self.parent.deleteLater()


@dataclass
class FinishedRun:
    """What was seen in one real run from click to result, and the scene saved after it."""

    path: Path
    statusLines: list[str]
    percents: list[int]
    longestGap: float
    longestGapAfterStart: float
    seconds: float
    resultTexts: dict[str, str]
    overlay: str
    opacity: float

    @classmethod
    def make(cls, module: OpenModule, path: Path) -> FinishedRun:
        """Presses Register on the synthetic pair and watches until the result is there."""
        from GlideRegScene import shown

        module.choose(makePair())
        lines: list[str] = []
        percents: list[int] = []
        heart = Heart()
        start = time.monotonic()
        module.click("applyButton")
        heart.mark()

        def over() -> bool:
            if module.ui.statusLabel.text not in lines[-1:]:
                lines.append(module.ui.statusLabel.text)
            if module.ui.progressBar.visible:
                percents.append(module.ui.progressBar.value)
            return module.logic.running is None

        module.waitUntil(over, 90)
        seconds = time.monotonic() - start
        module.processEvents()
        heart.stop()
        result = module.panel.result.transform
        run = cls(
            path,
            lines,
            percents,
            heart.longest(),
            heart.longest(sinceMark=True),
            seconds,
            module.resultTexts(),
            shown.overlay(result) if result is not None else "",
            shown.opacity(slicer.mrmlScene),
        )
        assert slicer.mrmlScene.WriteToMRB(str(path))
        return run


def _waitedForProcessor() -> float:
    """Seconds this thread was ready but other programs had the processor; 0 where nobody counts."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Heart:
    """A timer that ticks while the event loop is alive; says how long it stood still. What other
    programs took of a busy machine is left out, so that a test judges the panel and not the load.
    """

    def __init__(self) -> None:
        self._beats = [self._now()]
        self._marked = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(10)
        self._timer.connect("timeout()", lambda: self._beats.append(self._now()))
        self._timer.start()

    @staticmethod
    def _now() -> float:
        return time.monotonic() - _waitedForProcessor()

    def mark(self) -> None:
        self._beats.append(self._now())
        self._marked = len(self._beats) - 1

    def stop(self) -> None:
        self._timer.stop()

    def longest(self, sinceMark: bool = False) -> float:
        """The longest time without a beat, in seconds."""
        beats = self._beats[self._marked if sinceMark else 0 :]
        return max((b - a for a, b in itertools.pairwise(beats)), default=0.0)


def makePair() -> SimpleNamespace:
    """Fixed and moving volume with a known shift, and three landmarks in each (worst: "C")."""
    import vtk

    from GlideRegScene.self_test import makeShiftedPair

    fixed, moving, shift = makeShiftedPair()
    lists = []
    for name, offset in (("Fixed points", shift * 0), ("Moving points", shift)):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        for label, point in (("A", (30, 20, 10)), ("B", (-60, 10, 5)), ("C", (0, 45, 20))):
            # The last pair does not correspond: 5 mm more than the shift.
            wrong = (0, 0, 5.0) if label == "C" and offset.any() else (0, 0, 0)
            position = [float(p + o + e) for p, o, e in zip(point, offset, wrong, strict=True)]
            node.AddControlPoint(vtk.vtkVector3d(*position), label)
        lists.append(node)
    return SimpleNamespace(
        fixed=fixed, moving=moving, shift=shift, fixedPoints=lists[0], movingPoints=lists[1]
    )


def _comboOf(widget: Any) -> Any:
    """The list itself, also of a node selector."""
    return widget if widget.className() == "QComboBox" else widget.findChildren(qt.QComboBox)[0]


def entries(combo: Any) -> list[str]:
    """The texts of a list that drops down."""
    combo = _comboOf(combo)
    return [combo.itemText(index) for index in range(combo.model().rowCount())]
