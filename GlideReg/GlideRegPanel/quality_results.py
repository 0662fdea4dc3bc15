"""Quality, second half: verdict, tables, the jump to the worst places, Jacobian map, report."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from GlideRegScene.display import ViewState
from GlideRegScene.nodes import isInScene
from GlideRegScene.quality import overlay, tables

from . import quality_rows
from .messages import sentenceFor
from .section import Section


class QualityResultsSection(Section):
    """Shows the chosen assessment. ``start`` runs an action of the logic with the progress bar of
    the first half."""

    def __init__(self, ui, logic, start) -> None:
        super().__init__(ui)
        self._logic, self._start = logic, start
        self._shown: tuple | None = None  # what is in the widgets now: filled only when needed
        self._assessment = None
        self._measures: list = []
        self._filling = False
        self._spot = -1
        self._before: ViewState | None = None
        quality_rows.prepare(ui.qualityMeasuresTable, quality_rows.measureTitles())
        quality_rows.prepare(ui.motionTable, quality_rows.motionTitles())
        ui.qualityMeasuresTable.connect("currentCellChanged(int,int,int,int)", self._onRow)
        ui.qualityMeasuresTable.connect("cellClicked(int,int)", lambda row, column: self.jump())
        ui.motionTable.connect("cellClicked(int,int)", self._onMotion)
        ui.allMeasuresCheck.connect("clicked()", self.update)
        ui.nextPlaceButton.connect("clicked()", self.nextPlace)
        ui.qualityJacobianButton.connect("clicked()", self.showJacobian)
        ui.exportQualityButton.connect("clicked()", self.export)
        # Opening a section shows all that is in it, also a table that has nothing to show yet.
        ui.qualitySection.connect("contentsCollapsed(bool)", lambda collapsed: self.update())

    @property
    def table(self):
        """The chosen table node if it is one of ours, else None."""
        node = self.parameters.qualityTable if self.parameters is not None else None
        return node if isInScene(node) and tables.isQualityTable(node) else None

    def forget(self) -> None:
        """The scene is closed: its views are not those of the next one."""
        self._before = None

    # --- what is shown ----------------------------------------------------------------------------

    def update(self) -> None:
        if self._filling:
            return
        table = self.table
        self.follow("table", table, (vtk.vtkCommand.ModifiedEvent,), self._onChanged)
        self.ui.qualityContents.visible = table is not None
        if table is None:
            self._shown = self._assessment = None
            return
        shown = (table.GetAttribute(tables.ATTRIBUTE), self.ui.allMeasuresCheck.checked)
        if shown != self._shown:
            self._fill(table)
            self._shown = shown
        idle = self._logic.running is None
        self.ui.qualityJacobianButton.checked = overlay.isShown(table)
        self.ui.qualityJacobianButton.enabled = idle or overlay.mapOf(table) is not None
        self.ui.exportQualityButton.enabled = idle and self._assessment is not None

    def _fill(self, table) -> None:
        self._filling, self._spot = True, -1
        try:
            self._assessment = found = tables.assessmentOf(table)
            everything = self.ui.allMeasuresCheck.checked
            count = len(found.measures if everything else found.graded())
            self._measures = tables.ranked(found)[:count]
            motions = tables.motions(found)
            text, style = quality_rows.verdictLine(found), quality_rows.verdictStyle(found)
        except Exception as error:  # a damaged table is said, and does not break the panel
            self._assessment, self._measures, motions = None, [], {}
            text, style = sentenceFor(error), ""
        quality_rows.fillMeasures(self.ui.qualityMeasuresTable, self._measures)
        quality_rows.fillMotions(self.ui.motionTable, motions)
        self.ui.motionLabel.visible = self.ui.motionTable.visible = bool(motions)
        self.ui.qualityVerdictLabel.text, self.ui.qualityVerdictLabel.styleSheet = text, style
        self.ui.qualityDetail.text = _("Choose a row: all views go to its worst place.")
        self.ui.nextPlaceButton.enabled = bool(self._assessment and self._assessment.spots)
        self.ui.nextPlaceButton.text = _("Next worst place")
        self._filling = False

    # --- places -----------------------------------------------------------------------------------

    def jump(self) -> None:
        """All views go to the worst place of the chosen measure."""
        row = self.ui.qualityMeasuresTable.currentRow()
        if self._assessment is None or not 0 <= row < len(self._measures):
            return
        measure = self._measures[row]
        place = tables.place(self._assessment, measure)
        text = quality_rows.detail(measure)
        if place is None:
            text += _("<br>It belongs to no single place.")
        else:
            self._do(lambda: self._logic.jumpToPlace(place))
        self.ui.qualityDetail.text = text

    def nextPlace(self) -> None:
        """All views go to the worst place; pressed again, to the next one."""
        if self._assessment is None or not self._assessment.spots:
            return
        spots = self._assessment.spots
        self._spot = (self._spot + 1) % len(spots)
        spot = spots[self._spot]
        self._do(lambda: self._logic.jumpToPlace(spot.place))
        self.ui.qualityDetail.text = spot.why[:1].upper() + spot.why[1:]
        self.ui.nextPlaceButton.text = _("Next worst place ({k} of {n})").format(
            k=self._spot + 1, n=len(spots)
        )

    def _onRow(self, row: int, column: int, rowBefore: int, columnBefore: int) -> None:
        if not self._filling and row != rowBefore:
            self.jump()

    def _onMotion(self, row: int, column: int) -> None:
        """All views go to a structure."""
        if self._assessment is None:
            return
        name = list(tables.motions(self._assessment))[row]
        found = (self._assessment.find(k, name) for k in ("centroid_shift", "structure_folding"))
        places = [tables.place(self._assessment, measure) for measure in found if measure]
        place = next((p for p in places if p is not None), None)
        if place is not None:
            self._do(lambda: self._logic.jumpToPlace(place))

    # --- map and report ---------------------------------------------------------------------------

    def showJacobian(self) -> None:
        """The determinant over the fixed volume, or the views as they were before; it is computed
        when there is none yet."""
        table = self.table
        if table is None:
            return
        if overlay.mapOf(table) is None:
            self._start(
                lambda **callbacks: self._logic.mapJacobian(table, **callbacks),
                lambda run: self._overlay(run.result.table, True),
            )
        else:
            self._overlay(table, not overlay.isShown(table))
        self.update()

    def _overlay(self, table, visible: bool) -> None:
        if visible:
            self._before = ViewState(table.GetScene())
        overlay.show(table, visible, self._before)
        self._before = self._before if visible else None
        self.update()

    def export(self) -> None:
        """Asks for a folder, writes the report into it, and opens it in the browser."""
        table = self.table
        if table is None:
            return
        folder = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("Folder for the report")
        )
        if folder:
            self._start(
                lambda **callbacks: self._logic.exportAssessment(table, folder, **callbacks),
                lambda run: qt.QDesktopServices.openUrl(
                    qt.QUrl.fromLocalFile(str(run.result.report))
                ),
            )

    def _onChanged(self, caller, event) -> None:
        self.update()

    def _do(self, action) -> None:
        """An action whose failure is one sentence."""
        try:
            action()
        except Exception as error:
            slicer.util.errorDisplay(sentenceFor(error), windowTitle="GlideReg")
