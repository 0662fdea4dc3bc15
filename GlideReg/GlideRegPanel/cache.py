"""Model cache: where it is, how large it is, and a way to delete it."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from . import wording
from .messages import sentenceFor
from .section import Section


class CacheSection(Section):
    """Looks at the disk only when it is opened. The library's cache needs installed packages."""

    def __init__(self, ui, logic) -> None:
        super().__init__(ui)
        self._logic = logic
        ui.cacheSection.connect("contentsCollapsed(bool)", self._onCollapsed)
        ui.openCacheButton.connect("clicked()", self.openFolder)
        ui.clearCacheButton.connect("clicked()", self.clear)

    def update(self) -> None:
        if not self.ui.cacheSection.collapsed:
            self.show()

    def show(self, freed: int | None = None) -> None:
        """Location and size; ``freed`` bytes are named after a clearing."""
        try:
            root, size = _rootAndSize()
        except ImportError:
            text = _("Known once the Python packages are installed (press Register once).")
            self.ui.cacheLocation.text, self.ui.cacheSize.text = text, "–"
            self._enable(False)
            return
        self.ui.cacheLocation.text = str(root)
        text = wording.megabytes(size)
        if freed is not None:
            text = _("{size} ({freed} freed)").format(size=text, freed=wording.megabytes(freed))
        self.ui.cacheSize.text = text
        self._enable(True)
        self.ui.clearCacheButton.enabled = self._logic.running is None  # it may be using them

    def clear(self) -> None:
        """Deletes weights and encoded slices, after asking."""
        question = _("Delete the downloaded weights and the encoded slices of earlier runs?")
        if not slicer.util.confirmOkCancelDisplay(question, windowTitle="GlideReg"):
            return
        try:
            from GlideRegLib.features import weights
            from GlideRegLib.features.cache import FeatureCache

            freed = weights.clear() + FeatureCache().clear()
        except Exception as error:
            slicer.util.errorDisplay(sentenceFor(error), windowTitle="GlideReg")
            return
        self.show(freed)

    def openFolder(self) -> None:
        """Shows the cache in the system's file manager."""
        root, _size = _rootAndSize()
        root.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl(root.as_uri()))

    def _enable(self, on: bool) -> None:
        self.ui.openCacheButton.enabled = self.ui.clearCacheButton.enabled = on

    def _onCollapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self.show()


def _rootAndSize() -> tuple[Path, int]:
    """Folder of the cache, and bytes in use. Raises ImportError before the first installation."""
    from GlideRegLib.features import weights
    from GlideRegLib.features.cache import FeatureCache
    from GlideRegLib.features.folders import cache_root

    files = weights.weights_folder().rglob("*")
    size = sum(path.stat().st_size for path in files if path.is_file())
    return cache_root(), size + FeatureCache().size()
