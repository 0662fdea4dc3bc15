"""The dates of both scans: proposed from DICOM, typed over, and never saved; only the days are."""

from slicer.i18n import tr as _

from GlideRegScene.nodules import dates

from .messages import sentenceFor
from .section import Section

#: Parameters of earlier versions, which held dates.
_OLD = ("priorDate", "currentDate")


class ScanDates(Section):
    """Two edits and the days between them. Other volumes or roles empty them: the dates of one
    patient must not give doubling times to the next. ``problem`` says why dates cannot be used.
    """

    def __init__(self, ui, onChange) -> None:
        super().__init__(ui)
        self.problem = ""
        self._onChange = onChange
        self._edits = (ui.priorDateEdit, ui.currentDateEdit)
        self._filling = False
        self._shownFor: tuple | None = None
        self._hint = ""
        for edit in self._edits:
            edit.connect("textChanged(QString)", lambda text: self._onText())

    def bind(self, parameters) -> None:
        super().bind(parameters)
        self._shownFor = None
        for name in _OLD if parameters is not None else ():
            if parameters.parameterNode.GetParameter(name):
                parameters.parameterNode.UnsetParameter(name)

    def update(self) -> None:
        if self.parameters is None:
            return
        scans = dates.scansOf(self.parameters)
        shownFor = tuple(node.GetID() if node is not None else "" for node in scans)
        if shownFor != self._shownFor:
            self._shownFor = shownFor
            self._propose(*scans)
        days = dates.keptDays(self.parameters)
        self.ui.daysLabel.text = daysApart(days) if days is not None else self._hint
        self.ui.daysLabel.visible = bool(self.ui.daysLabel.text)
        if days is not None:
            hint = _(
                "The days between these two scans, for doubling times. Typed dates replace them."
            )
        else:
            hint = _("The DICOM database does not date the prior scan before the current one")
        self.ui.daysLabel.toolTip = hint

    def _propose(self, prior, current) -> None:
        """Fills in what the DICOM database knows, unless the days are known already."""
        self.problem = self._hint = ""
        self._fill("", "")
        found = [dates.scanDate(volume) for volume in (prior, current)]
        if not all(found) or dates.keptDays(self.parameters) is not None:
            return
        if found[0] < found[1]:
            self._fill(*found)
            self._onText()
        else:
            same = found[0] == found[1]
            self._hint = _("one day") if same else _("exchanged?")

    def _fill(self, *texts: str) -> None:
        self._filling = True
        for edit, text in zip(self._edits, texts, strict=True):
            edit.text = text
        self._filling = False

    def _onText(self) -> None:
        if self._filling or self.parameters is None:
            return
        days, self.problem = None, ""
        try:
            days = dates.daysBetween(*(edit.text for edit in self._edits))
        except Exception as error:
            self.problem = sentenceFor(error)
        dates.keepDays(self.parameters, days)
        self._onChange()


def daysApart(days: float) -> str:
    """The days between two scans in words."""
    return _("{n} days apart").format(n=f"{days:.0f}")
