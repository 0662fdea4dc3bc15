"""Sections with a .ui file of their own; the panel shows them after *Nodules*."""

from pathlib import Path

import slicer

#: Files of Resources/UI in the order of the panel. The root of each is a ctkCollapsibleButton; no
#: name of a widget may be in two files.
FILES = ("GlideRegQuality.ui", "GlideRegCompare.ui", "GlideRegPropagate.ui")

_SCENE_CHANGED = "mrmlSceneChanged(vtkMRMLScene*)"
_SET_SCENE = "setMRMLScene(vtkMRMLScene*)"


def addSections(uiWidget, folder: str | Path) -> None:
    """Puts the sections of :data:`FILES` into the panel's layout.

    ``uiWidget`` is the loaded GlideReg.ui; whoever needs a scene inside the sections gets it with
    it, as do the widgets of that file.
    """
    rows = uiWidget.layout()
    below = rows.indexOf(slicer.util.findChild(uiWidget, name="nodulesSection")) + 1
    for place, name in enumerate(FILES, start=below):
        section = slicer.util.loadUI(str(Path(folder) / name))
        rows.insertWidget(place, section)
        for child in slicer.util.findChildren(section):
            if hasattr(child, "setMRMLScene") and child.isWidgetType():
                uiWidget.connect(_SCENE_CHANGED, child, _SET_SCENE)
