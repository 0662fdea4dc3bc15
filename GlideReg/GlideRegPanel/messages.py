"""How errors and the log are shown."""

import logging

import qt
import slicer
from slicer.i18n import tr as _


def sentenceFor(error: Exception) -> str:
    """The sentence for the user; what nobody expected goes to the application's log as well."""
    from GlideRegLib.errors import GlideRegError
    from GlideRegRun.dependencies import MissingDependency

    if isinstance(error, GlideRegError | MissingDependency):
        return str(error)
    logging.error("GlideReg: an unexpected error", exc_info=error)
    return _("Something unexpected went wrong ({kind}); see the application's error log.").format(
        kind=type(error).__name__
    )


class LogWindow:
    """A window with the lines of a run that can be copied; it does not block the application."""

    def __init__(self) -> None:
        self._dialog = None
        self._text = None

    def show(self, lines: list[str]) -> None:
        """Opens the window, or fills it anew."""
        if self._dialog is None:
            self._build()
        self._text.setPlainText("\n".join(lines))
        self._dialog.show()
        self._dialog.raise_()

    def _build(self) -> None:
        self._dialog = qt.QDialog(slicer.util.mainWindow())
        self._dialog.setWindowTitle(_("GlideReg: log of the last run"))
        self._dialog.resize(640, 400)
        rows = qt.QVBoxLayout(self._dialog)
        self._text = qt.QPlainTextEdit(self._dialog)
        self._text.readOnly = True
        self._text.setLineWrapMode(qt.QPlainTextEdit.NoWrap)
        rows.addWidget(self._text)
        buttons = qt.QHBoxLayout()
        copy, close = qt.QPushButton(_("Copy"), self._dialog), qt.QPushButton(_("Close"))
        copy.connect("clicked()", self._copy)
        close.connect("clicked()", self._dialog.hide)
        buttons.addStretch(1)
        buttons.addWidget(copy)
        buttons.addWidget(close)
        rows.addLayout(buttons)

    def _copy(self) -> None:
        self._text.selectAll()
        self._text.copy()
