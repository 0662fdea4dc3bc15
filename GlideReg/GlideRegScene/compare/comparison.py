"""One comparison in the slice views: started, changed, ended; then the views are as before.

The first volume is the background and the second one the foreground of every slice view (or what
was computed from both), so windows, colors, data probe and crosshair work as always.
"""

from collections.abc import Callable
from dataclasses import replace

import vtk

from ..display import ViewState, compositeNodes
from ..nodes import isInScene
from . import slices
from .modes import ANIMATED, MASKED, Mode, Options
from .views import ComparedView


def problem(first, second) -> str:
    """Why two volumes cannot be compared, as one sentence; "" when they can."""
    if first is None or second is None:
        return "Choose two volumes to compare, or register first."
    if first is second:
        return "Both are the same volume; choose another one to compare."
    for node in (first, second):
        if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
            return "One of the volumes is empty; load or choose one with voxels."
    return ""


class Comparison:
    """Compares two volumes in all slice views but those of a layout of this module.

    ``onEnded()`` is called when it ends without :meth:`stop`: a volume was removed, somebody chose
    other volumes in a view, or a scene is read or closed. With ``followsMouse`` the line of a split
    goes through the place under the mouse, in all views. ``before``: what the views showed before.
    """

    def __init__(self, scene, onEnded: Callable[[], None] = lambda: None) -> None:
        self.scene = scene
        self.mode: Mode | None = None
        self.options = Options()
        self.followsMouse = False
        self.first = self.second = None
        self._onEnded = onEnded
        self.before: ViewState | None = None
        self._views: list[ComparedView] = []
        self._observed: list[tuple] = []
        self._busy = False

    def start(self, first, second, mode: Mode, options: Options | None = None) -> None:
        """Shows two volumes in a mode; from another mode or other volumes it changes over.

        Raises InputError, one sentence, for volumes that cannot be compared.
        """
        from GlideRegLib.errors import InputError

        sentence = problem(first, second)
        if sentence:
            raise InputError(sentence)
        if self.before is None:
            self.before = ViewState(self.scene)
        before, self._busy = self._busy, True
        try:
            self._leaveViews()
            self.first, self.second, self.mode = first, second, mode
            self.options = options or self.options
            self._views = [
                ComparedView(node, first, second, mode) for node in compositeNodes(self.scene)
            ]
            self._apply()
            self._observe()
        finally:
            self._busy = before

    def set(self, options: Options) -> None:
        """Changes what can be set, at once in all views."""
        self.options = options
        if self.mode is not None:
            self._apply()

    def setOpacity(self, opacity: float) -> None:
        """The second volume's opacity at this moment: fading, rocking, flickering."""
        before, self._busy = self._busy, True
        try:
            for view in self._views:
                view.setOpacity(opacity)
        finally:
            self._busy = before

    def stop(self) -> None:
        """Ends the comparison: what the views showed before comes back, nothing is left behind.

        A view for which somebody has chosen other volumes meanwhile keeps those.
        """
        ours = [view.name for view in self._views if view.isOurs()]
        self._end(ours)

    def forget(self) -> None:
        """The scene is being closed: ends the comparison, and brings nothing back."""
        self._end(())

    # --- inside -----------------------------------------------------------------------------------

    def _end(self, restored) -> None:
        state, self.before = self.before, None
        before, self._busy = self._busy, True
        try:
            self._leaveViews()
            if state is not None and restored:
                state.restore(self.scene, restored)
        finally:
            self._busy = before
        self.mode = self.first = self.second = None

    def _leaveViews(self) -> None:
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed = []
        views, self._views = self._views, []
        for view in views:
            view.leave()
        slices.removeColors(self.scene)

    def _apply(self) -> None:
        for view in self._views:
            view.apply(self.options)
        if self.mode not in ANIMATED:
            fades = self.mode is Mode.FADE
            self.setOpacity(self.options.opacity if fades else 1.0)

    def _observe(self) -> None:
        modified = vtk.vtkCommand.ModifiedEvent
        scene = self.scene
        self._watch(scene, scene.NodeRemovedEvent, self._onRemoved)
        self._watch(scene, scene.StartImportEvent, lambda *event: self._leave(self.stop))
        self._watch(scene, scene.StartCloseEvent, lambda *event: self._leave(self.forget))
        crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if self.mode is Mode.SPLIT and crosshair is not None:
            self._watch(crosshair, crosshair.CursorPositionModifiedEvent, self._onMouse)
        for view in self._views:
            self._watch(view.composite, modified, self._onLayers)
            if self.mode in MASKED:
                self._watch(view.sliceNode, modified, lambda *event, view=view: view.moved())

    def _watch(self, node, event, callback) -> None:
        self._observed.append((node, node.AddObserver(event, callback)))

    def _onLayers(self, caller, event) -> None:
        """Somebody changed what a view shows."""
        if not self._busy and not all(view.isOurs() for view in self._views):
            self._leave(self.stop)

    def _onRemoved(self, caller, event) -> None:
        if not self._busy and not (isInScene(self.first) and isInScene(self.second)):
            self._leave(self.stop)

    def _onMouse(self, crosshair, event) -> None:
        place = [0.0, 0.0, 0.0]
        if self.followsMouse and crosshair.GetCursorPositionRAS(place):
            self.set(replace(self.options, through=tuple(place)))

    def _leave(self, end: Callable[[], None]) -> None:
        end()
        self._onEnded()
