"""Nodules, second half: the table, the jump to a nodule, decisions, layout and export."""

from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from GlideRegScene.nodes import isInScene
from GlideRegScene.nodules import markers, tables, views

from . import nodule_rows
from .messages import sentenceFor
from .section import Section

_DECISIONS = ("confirmNoduleButton", "correctNoduleButton", "rejectNoduleButton")


class NodulesSection(Section):
    """Shows the chosen table of nodules, and changes it through the logic."""

    def __init__(self, ui, logic) -> None:
        super().__init__(ui)
        self._logic = logic
        self._shown: str | None = None  # what is in the widget now, to fill it only when needed
        self._identifiers: list[str] = []
        self._filling = False
        self._damage = ""  # why a table cannot be read
        self._moving: str | None = None  # the nodule whose marker may be dragged
        self._placing = None  # the list into which a new nodule is being placed
        self._activeBefore = ""  # the list into which the user was placing points
        self._layoutBefore: int | None = None
        nodule_rows.prepare(ui.nodulesTable)
        ui.nodulesTable.connect("currentCellChanged(int,int,int,int)", self._onRow)
        ui.nodulesTable.connect("cellClicked(int,int)", lambda row, column: self.jump())
        ui.confirmNoduleButton.connect("clicked()", self.confirm)
        ui.correctNoduleButton.connect("clicked()", self.correct)
        ui.separateNoduleButton.connect("clicked()", self.separate)
        ui.rejectNoduleButton.connect("clicked()", self.reject)
        ui.addNoduleButton.connect("clicked()", self.add)
        ui.compareButton.connect("clicked()", self.compare)
        ui.exportNodulesButton.connect("clicked()", self.export)

    @property
    def table(self):
        """The chosen table node if it is one of ours, else None."""
        node = self.parameters.noduleTable if self.parameters is not None else None
        return node if isInScene(node) and tables.isNoduleTable(node) else None

    @property
    def identifier(self) -> str | None:
        """The chosen nodule."""
        row = self.ui.nodulesTable.currentRow()
        return self._identifiers[row] if 0 <= row < len(self._identifiers) else None

    def bind(self, parameters) -> None:
        if parameters is None:
            self._stopMoving()
            self._stopPlacing()
        super().bind(parameters)

    # --- what is shown ----------------------------------------------------------------------------

    def update(self) -> None:
        if self._filling:
            return
        table = self.table
        self.follow("table", table, (vtk.vtkCommand.ModifiedEvent,), self._onChanged)
        self.ui.nodulesContents.visible = table is not None
        if table is None:
            self._shown = None
            return
        if table.GetAttribute(tables.ATTRIBUTE) != self._shown:
            self._fill(table)
        self._showChosen()
        self.ui.compareButton.checked = views.comparisonShown(table.GetScene())

    def _fill(self, table) -> None:
        chosen, self._filling = self.identifier, True
        try:
            self._shown, self._damage = table.GetAttribute(tables.ATTRIBUTE), ""
            tracking = tables.trackingOf(table)
            nodule_rows.fill(self.ui.nodulesTable, tracking.rows)
            self.ui.noduleDaysLabel.text = nodule_rows.daysLine(tracking)
            self._identifiers = [row.identifier for row in tracking]
            if chosen in self._identifiers:
                self.ui.nodulesTable.setCurrentCell(self._identifiers.index(chosen), 0)
        except Exception as error:  # a damaged table is said, and does not break the panel
            self._identifiers = []
            self.ui.nodulesTable.setRowCount(0)
            self.ui.noduleDaysLabel.text = ""
            self._damage = sentenceFor(error)
        finally:
            self._filling = False

    def _showChosen(self) -> None:
        row = self._row()
        for name in _DECISIONS:
            getattr(self.ui, name).enabled = row is not None
        self.ui.confirmNoduleButton.checked = row is not None and row.decision == "confirmed"
        self.ui.rejectNoduleButton.checked = row is not None and row.decision == "rejected"
        self.ui.correctNoduleButton.checked = _isCorrected(row) or self._moving is not None
        self.ui.separateNoduleButton.checked = _isSeparated(row)
        isPair = row is not None and None not in (row.moving_center, row.fixed_center)
        self.ui.separateNoduleButton.enabled = isPair or _isSeparated(row)
        self.ui.addNoduleButton.checked = self._placing is not None
        if self._moving is not None:
            text = _("Drag the marker in a view of the current scan; where you drop it counts.")
        elif self._placing is not None:
            text = _("Click the new nodule in a view of the current scan.")
        elif row is not None:
            text = nodule_rows.detail(row)
        else:
            text = self._damage or _("Choose a row: all views go to that nodule.")
        self.ui.noduleDetail.text = text

    def _row(self):
        """The chosen row as the library's TrackRow, or None."""
        if self.table is None or self.identifier is None:
            return None
        try:
            return tables.trackingOf(self.table).by_identifier(self.identifier)
        except Exception:  # a damaged table; update says so
            return None

    def _onChanged(self, caller, event) -> None:
        self.update()

    # --- views ------------------------------------------------------------------------------------

    def _onRow(self, row: int, column: int, rowBefore: int, columnBefore: int) -> None:
        if not self._filling and row != rowBefore:
            self._stopMoving()
            self.jump()

    def jump(self) -> None:
        """All views go to the chosen nodule, each in its own scan."""
        if self.table is not None and self.identifier is not None:
            self._do(lambda: views.jumpTo(self.table, self.identifier))
        self._showChosen()

    def compare(self) -> None:
        """Prior, warped prior and current side by side, or the layout before."""
        if self.table is None:
            return
        if views.comparisonShown(self.table.GetScene()):
            before = self._layoutBefore or slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
            views.showLayout(self.table.GetScene(), before)
        else:
            self._layoutBefore = views.showComparison(self.table)
            self.jump()
        self.update()

    # --- decisions --------------------------------------------------------------------------------

    def confirm(self) -> None:
        """The chosen row is right; again: it is open."""
        self._decide(self._logic.confirmNodule, lambda row: row.decision == "confirmed")

    def separate(self) -> None:
        """The chosen pair is none: resolved and new; again: it is one."""
        self._decide(self._logic.separateNodule, _isSeparated)

    def reject(self) -> None:
        """The chosen row is wrong; again: it is as it was before."""
        self._decide(self._logic.rejectNodule, lambda row: row.decision == "rejected")

    def _decide(self, decide, isDecided) -> None:
        row = self._row()
        if row is not None:
            self._stopMoving()
            change = self._logic.reopenNodule if isDecided(row) else decide
            self._do(lambda: change(self.table, row.identifier))
        self.update()

    def correct(self) -> None:
        """The marker of the chosen nodule may be dragged; again: its place counts as it is. The
        correction of a corrected row is taken back."""
        if self._moving is not None:
            self._takeMarker()
            return
        if _isCorrected(self._row()):
            self._decide(self._logic.reopenNodule, _isCorrected)
            return
        found = self.identifier and markers.markerOf(self.table, self.identifier)
        if found:
            self._stopPlacing()
            self._moving = self.identifier
            markers.unlock(self.table, self._moving)
            ended = (slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent,)
            self.follow("marker", found[0], ended, self._onDropped)
        self._showChosen()

    def _onDropped(self, caller, event) -> None:
        # The list is filled anew by the correction: not while it tells about its own change.
        qt.QTimer.singleShot(0, self._takeMarker)

    def _takeMarker(self) -> None:
        identifier, self._moving = self._moving, None
        self.follow("marker", None, (), None)
        if identifier is not None and self.table is not None:
            found = markers.markerOf(self.table, identifier)
            if found is not None:
                node, k = found
                place = node.GetNthControlPointPositionWorld(k)
                self._do(lambda: self._logic.correctNodule(self.table, identifier, place))
                markers.refresh(self.table)  # also puts back a marker that was dropped outside
        self.update()

    def _stopMoving(self) -> None:
        """No marker may be dragged; one that was moved goes back."""
        if self._moving is not None:
            self._moving = None
            self.follow("marker", None, (), None)
            if self.table is not None:
                markers.refresh(self.table)

    # --- new nodules ------------------------------------------------------------------------------

    def add(self) -> None:
        """A click in a view adds a nodule; the current nodule of a rejected pair is added at once.
        Pressed again: no nodule is added."""
        if self._placing is not None:
            self._stopPlacing()
        elif self.table is not None:
            self._stopMoving()
            row = self._row()
            refused = row is not None and row.decision == "rejected"
            if refused and row.fixed_center and row.moving_center:
                self._addAt(_ras(row.fixed_center), _("{name} (new)").format(name=row.name))
            else:
                self._startPlacing()
        self._showChosen()

    def _startPlacing(self) -> None:
        logic = slicer.modules.markups.logic()
        self._activeBefore = logic.GetActiveListID()  # a list that is added becomes the active one
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("New nodule"))
        node.SetSaveWithScene(False)
        node.SetMaximumNumberOfControlPoints(1)
        self._placing = node
        placed = (slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent,)
        self.follow("placing", node, placed, self._onPlaced)
        logic.SetActiveList(node)
        logic.StartPlaceMode(False)

    def _onPlaced(self, caller, event) -> None:
        qt.QTimer.singleShot(0, self._takePlaced)

    def _takePlaced(self) -> None:
        node = self._placing
        if node is not None and node.GetNumberOfControlPoints():
            place = list(node.GetNthControlPointPositionWorld(0))
            self._stopPlacing()
            self._addAt(place, "")

    def _addAt(self, place, name: str) -> None:
        found: list[str] = []
        self._do(lambda: found.append(self._logic.addNodule(self.table, place, name)))
        self.update()
        if found:
            self.ui.nodulesTable.setCurrentCell(self._identifiers.index(found[0]), 0)

    def _stopPlacing(self) -> None:
        node, self._placing = self._placing, None
        self.follow("placing", None, (), None)
        if isInScene(node):
            slicer.mrmlScene.RemoveNode(node)
            interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
            if interaction is not None:
                interaction.SwitchToViewTransformMode()
            before = slicer.mrmlScene.GetNodeByID(self._activeBefore or "")
            if before is not None:
                slicer.modules.markups.logic().SetActiveList(before)

    # --- export -----------------------------------------------------------------------------------

    def export(self) -> None:
        """Asks for a file and writes the table as CSV."""
        if self.table is None:
            return
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Export nodules"), "nodules.csv", "CSV (*.csv)"
        )
        if path:
            path = Path(path)
            path = path if path.suffix.lower() == ".csv" else path.with_name(path.name + ".csv")
            self._do(lambda: self._logic.exportNodules(self.table, path))

    def _do(self, action) -> None:
        """An action whose failure is one sentence."""
        try:
            action()
        except Exception as error:
            slicer.util.errorDisplay(sentenceFor(error), windowTitle="GlideReg")


def _isCorrected(row) -> bool:
    return row is not None and row.decision == "corrected" and not _isSeparated(row)


def _isSeparated(row) -> bool:
    return row is not None and row.decision == "corrected" and row.fixed_center is None


def _ras(point) -> list[float]:
    from GlideRegLib.geometry import flip_lps_ras

    return flip_lps_ras(point).tolist()
