"""Propagate: what is carried from one scan to the other, the run, and Undo."""

import math

import qt
import slicer
from slicer.i18n import tr as _

from GlideRegRun.dependencies import MissingDependency
from GlideRegRun.propagation import PropagationRun
from GlideRegRun.registration import ProgressUpdate
from GlideRegScene.nodes import isInScene
from GlideRegScene.propagation.candidates import candidates, isSuggested, kindOf

from . import wording
from .messages import sentenceFor
from .section import Section

_ERROR_STYLE = "color: #c62828"
#: How often the list is compared with the scene while it can be seen, milliseconds.
_WATCH = 400
_KINDS = {
    "segmentation": _("Segmentation"),
    "markups": _("Markups"),
    "model": _("Model"),
    "labels": _("Label map"),
}
_IMAGE, _DOSE = 0, 1


class PropagationSection(Section):
    """Lists what can be carried, starts a run and shows it. ``onEnd`` is called after every run."""

    def __init__(self, ui, logic, onEnd) -> None:
        super().__init__(ui)
        self._logic, self._onEnd = logic, onEnd
        self._ticked: dict[tuple, bool] = {}  # what the user said, by direction and node
        self._doses: set[str] = set()  # IDs of volumes that the user called dose
        self._nodes: list = []
        self._shown: tuple = ()  # what is in the table now, to fill it only when needed
        self._filling = self._starting = False
        self._last = None  # the nodes of the last propagation
        table = ui.propagateTable
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels([_("Carry over"), _("As")])
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.connect("cellChanged(int,int)", self._onCell)
        ui.propagateAllButton.connect("clicked()", lambda: self._tickAll(True))
        ui.propagateNoneButton.connect("clicked()", lambda: self._tickAll(False))
        ui.propagateButton.connect("clicked()", self.propagate)
        ui.cancelPropagateButton.connect("clicked()", self.cancel)
        ui.undoPropagateButton.connect("clicked()", self.undo)
        ui.propagateSection.connect("contentsCollapsed(bool)", lambda collapsed: self.update())
        # Nodes come, go, are renamed and filled: the list looks again while it can be seen.
        self._watch = qt.QTimer()
        self._watch.setInterval(_WATCH)
        self._watch.connect("timeout()", self.update)
        self._showStatus("")

    def bind(self, parameters) -> None:
        super().bind(parameters)
        if parameters is None:
            self._watch.stop()

    def close(self) -> None:
        """The module's widgets go: nothing may look at them any more."""
        self._watch.stop()

    def forget(self) -> None:
        """The scene is being closed: the IDs of its nodes will be those of others."""
        self._ticked.clear()
        self._doses.clear()
        self._last, self._nodes, self._shown = None, [], ()
        self._showStatus("")

    @property
    def chosen(self) -> list:
        """The nodes that are ticked."""
        return [node for node in self._nodes if self._isTicked(node)]

    # --- what is shown ----------------------------------------------------------------------------

    def update(self) -> None:
        if self.parameters is None or self._filling:
            return
        running = self._logic.running
        propagating = isinstance(running, PropagationRun) or self._starting
        if self.ui.propagateSection.collapsed and not propagating:
            self._watch.stop()
            return
        if not self._watch.isActive():
            self._watch.start()
        self._fill()
        self.ui.propagateProgressBar.visible = propagating
        self.ui.cancelPropagateButton.visible = propagating and not self._starting
        self.ui.undoPropagateButton.enabled = running is None and self._canUndo()
        if propagating:
            self._setButton(False, _("Propagating…"), _("Structures are being carried over"))
        elif running is not None:
            self._setButton(False, _("Propagate"), _("Another run is going on"))
        else:
            self._updateButton()

    def _updateButton(self) -> None:
        try:
            problem = self._request(self.chosen).problem()
        except Exception as error:
            problem = sentenceFor(error)
        if problem:
            self._setButton(False, wording.shortReason(problem), problem)
            return
        self._setButton(
            True, _("Propagate"), _("Makes a new node of each; what is there is not changed")
        )

    def _setButton(self, enabled: bool, text: str, toolTip: str) -> None:
        self.ui.propagateButton.enabled = enabled
        self.ui.propagateButton.text = text
        self.ui.propagateButton.toolTip = toolTip

    def _showStatus(self, text: str, isError: bool = False) -> None:
        self.ui.propagateStatusLabel.text = text
        self.ui.propagateStatusLabel.visible = bool(text)
        self.ui.propagateStatusLabel.styleSheet = _ERROR_STYLE if isError else ""

    def _request(self, nodes):
        doses = [node for node in nodes if node.GetID() in self._doses]
        return self._logic.propagateRequestFrom(self.parameters, nodes, doses)

    # --- the list ---------------------------------------------------------------------------------

    def _fill(self) -> None:
        request = self._request([])
        nodes = candidates(slicer.mrmlScene, request)
        rows = [(node.GetID(), node.GetName(), isSuggested(node, request)) for node in nodes]
        shown = (request.back, tuple(rows))
        if shown == self._shown:
            return
        self._filling, self._shown, self._nodes = True, shown, nodes
        try:
            self.ui.propagateTable.setRowCount(len(nodes))
            for row, node in enumerate(nodes):
                self._fillRow(row, node)
            self.ui.propagateTable.resizeColumnToContents(1)
            self.ui.propagateTable.resizeRowsToContents()
        finally:
            self._filling = False

    def _fillRow(self, row: int, node) -> None:
        item = qt.QTableWidgetItem(node.GetName())
        item.setToolTip(node.GetName())
        item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled)
        item.setCheckState(qt.Qt.Checked if self._isTicked(node) else qt.Qt.Unchecked)
        self.ui.propagateTable.setItem(row, 0, item)
        kind = kindOf(node)
        self.ui.propagateTable.removeCellWidget(row, 1)
        self.ui.propagateTable.setItem(row, 1, qt.QTableWidgetItem(_KINDS.get(kind, "")))
        if kind == "dose":
            self.ui.propagateTable.setItem(row, 1, qt.QTableWidgetItem(_("Dose")))
        elif kind == "image":
            combo = qt.QComboBox()
            combo.addItems([_("Image"), _("Dose")])
            combo.toolTip = _("Dose: linear, and 0 outside of what was computed")
            combo.setCurrentIndex(_DOSE if node.GetID() in self._doses else _IMAGE)
            key = node.GetID()
            combo.connect("currentIndexChanged(int)", lambda index: self._onKind(key, index))
            self.ui.propagateTable.setCellWidget(row, 1, combo)

    def _isTicked(self, node) -> bool:
        said = self._ticked.get((self._shown[0], node.GetID()))
        if said is not None:
            return said
        return any(row[0] == node.GetID() and row[2] for row in self._shown[1])

    def _onCell(self, row: int, column: int) -> None:
        if not self._filling and column == 0:
            state = self.ui.propagateTable.item(row, 0).checkState()
            self._ticked[self._shown[0], self._nodes[row].GetID()] = state == qt.Qt.Checked
            self.update()

    def _onKind(self, key: str, index: int) -> None:
        (self._doses.add if index == _DOSE else self._doses.discard)(key)
        self.update()

    def _tickAll(self, ticked: bool) -> None:
        for node in self._nodes:
            self._ticked[self._shown[0], node.GetID()] = ticked
        self._shown = ()
        self.update()

    # --- what is done -----------------------------------------------------------------------------

    def propagate(self) -> None:
        """Carries what is ticked, in the background."""
        if self._starting or self._logic.running is not None or self.parameters is None:
            return
        self._starting = True  # questions about packages are asked meanwhile
        self._onProgress(ProgressUpdate(_("Starting"), 0.0, None))
        self.update()
        try:
            self._logic.runPropagation(
                self._request(self.chosen),
                blocking=False,
                onProgress=self._onProgress,
                onFinished=self._onFinished,
            )
            self.ui.cancelPropagateButton.enabled = True
        except Exception as error:
            sentence = sentenceFor(error)
            self._showStatus(sentence, isError=True)
            if not isinstance(error, MissingDependency):
                slicer.util.errorDisplay(sentence, windowTitle="GlideReg")
        finally:
            self._starting = False
            self.update()

    def cancel(self) -> None:
        """Ends the run within two seconds."""
        self.ui.cancelPropagateButton.enabled = False
        self._showStatus(_("Cancelling…"))
        self._logic.cancel()

    def undo(self) -> None:
        """The nodes of the last propagation go again."""
        if self._canUndo() and self._logic.running is None:
            count = sum(isInScene(node) for node in self._last.nodes)
            self._last.undo()
            self._last = None
            self._showStatus(_("{n} nodes were taken out again.").format(n=count))
        self.update()

    def _canUndo(self) -> bool:
        return self._last is not None and any(isInScene(node) for node in self._last.nodes)

    def _onProgress(self, update: ProgressUpdate) -> None:
        self.ui.propagateProgressBar.value = math.floor(100 * update.fraction)
        if self.ui.cancelPropagateButton.enabled or self._starting:
            self._showStatus(
                wording.progressLine(update.stage, update.fraction, update.secondsLeft)
            )

    def _onFinished(self, run: PropagationRun) -> None:
        self.ui.cancelPropagateButton.enabled = True
        if run.result is not None:
            self._last = run.result
            for node in run.request.nodes:  # done: another press would make them twice
                self._ticked[run.request.back, node.GetID()] = False
            self._shown = ()
        self._showStatus(*_outcome(run))
        self._onEnd(run)
        if run.state == "failed":
            slicer.util.errorDisplay(run.error, windowTitle="GlideReg")


def _outcome(run: PropagationRun) -> tuple[str, bool]:
    """What the status line says about a finished run, and whether that is an error."""
    if run.state == "failed":
        return run.error, True
    if run.state == "cancelled":
        return _("Cancelled; nothing was changed."), False
    target, count = run.request.target.GetName(), len(run.result.nodes)
    said = _("{n} new nodes on '{target}'.") if count > 1 else _("A new node on '{target}'.")
    return "\n".join([said.format(n=count, target=target), *run.result.notes]), False
