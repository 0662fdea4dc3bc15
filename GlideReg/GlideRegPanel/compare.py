"""Compare: two volumes over each other in the slice views, in one of seven ways."""

import html
import time
from functools import partial

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from GlideRegScene.compare.comparison import Comparison, problem
from GlideRegScene.compare.modes import ANIMATED, COMPUTED, MASKED, Mode, Options, opacityAt
from GlideRegScene.display import ViewState, compositeNodes
from GlideRegScene.nodes import isInScene
from GlideRegScene.results import WARPED_ROLE

from .messages import sentenceFor
from .section import Section

_BUTTONS = {
    Mode.FADE: "compareFadeButton",
    Mode.ROCK: "compareRockButton",
    Mode.FLICKER: "compareFlickerButton",
    Mode.CHECKERBOARD: "compareCheckerboardButton",
    Mode.SPLIT: "compareSplitButton",
    Mode.RED_CYAN: "compareRedCyanButton",
    Mode.DIFFERENCE: "compareDifferenceButton",
}
#: What can be set in which modes.
_SETTINGS = {
    "compareOpacity": (Mode.FADE,),
    "comparePeriod": ANIMATED,
    "compareTile": (Mode.CHECKERBOARD,),
    "compareSplit": (Mode.SPLIT,),
    "compareRange": (Mode.DIFFERENCE,),
}
_CHECKS = {
    "compareHorizontalCheck": (Mode.SPLIT,),
    "compareFollowCheck": (Mode.SPLIT,),
    "compareSwapCheck": MASKED + COMPUTED,
}
#: Milliseconds between two steps of an animation.
_STEP = 40


class CompareSection(Section):
    """Starts, changes and ends a comparison.

    A comparison stays when the module is left, and stands still; it is not saved with the scene.
    """

    def __init__(self, ui, chosenResult) -> None:
        """``chosenResult`` gives the result transform node, or None."""
        super().__init__(ui)
        self._chosenResult = chosenResult
        self._comparison = Comparison(slicer.mrmlScene, self.update)
        self._applying = False
        self._started = 0.0
        self._timer = qt.QTimer()
        self._timer.setInterval(_STEP)
        self._timer.connect("timeout()", self._animate)
        for mode, name in _BUTTONS.items():
            getattr(ui, name).connect("clicked()", partial(self._choose, mode))
        ui.compareResetButton.connect("clicked()", self.reset)
        # What is hidden in a closed section would appear with the rest when it is opened.
        ui.compareSection.connect("contentsCollapsed(bool)", lambda collapsed: self.update())

    @property
    def mode(self) -> Mode | None:
        """The way that is shown now."""
        return self._comparison.mode

    @property
    def viewsBefore(self) -> ViewState | None:
        """What the views showed before the comparison that is going on; None without one."""
        return self._comparison.before

    @property
    def isMoving(self) -> bool:
        """Whether an animation is going on."""
        return self._timer.isActive()

    def bind(self, parameters) -> None:
        super().bind(parameters)
        if parameters is None:
            self._stand()
            return
        for node in compositeNodes(slicer.mrmlScene)[:1]:
            self.follow("layers", node, (vtk.vtkCommand.ModifiedEvent,), self._onLayers)

    def close(self) -> None:
        """The module's widgets go: the views get back what they showed."""
        self._stand()
        self._comparison.stop()

    def reset(self) -> None:
        """Ends the comparison: the views are as before it."""
        self._comparison.stop()
        self.update()

    def volumes(self) -> tuple:
        """The two volumes: those chosen here, else those of the registration; None where none."""
        chosen, transform = self.parameters, self._chosenResult()
        fixed, moving = chosen.fixedVolume, chosen.movingVolume
        if transform is not None:
            fixed = transform.GetNodeReference(transform.GetFixedNodeReferenceRole()) or fixed
            warped = transform.GetNodeReference(WARPED_ROLE)
            moving = warped if isInScene(warped) else moving
        return chosen.compareFirst or fixed, chosen.compareSecond or moving

    def options(self) -> Options:
        """What can be set, as the panel says."""
        chosen = self.parameters
        return Options(
            opacity=chosen.compareOpacity / 100,
            tileMm=chosen.compareTile,
            split=chosen.compareSplit / 100,
            horizontal=chosen.compareHorizontal,
            through=self._comparison.options.through if chosen.compareFollow else None,
            rangeHu=chosen.compareRange,
            swapped=chosen.compareSwapped,
        )

    def update(self) -> None:
        if self.parameters is None or self._applying:
            return
        self._applying = True
        try:
            self._followPanel()
        finally:
            self._applying = False
        sentence = problem(*self.volumes())
        for mode, name in _BUTTONS.items():
            button = getattr(self.ui, name)
            button.enabled = not sentence
            button.checked = mode is self.mode
        self.ui.compareResetButton.enabled = self.mode is not None
        for name, modes in _SETTINGS.items():
            for part in ("Label", "Slider"):
                getattr(self.ui, name + part).visible = self.mode in modes
        for name, modes in _CHECKS.items():
            getattr(self.ui, name).visible = self.mode in modes
        self.ui.compareSplitSlider.enabled = not self.parameters.compareFollow
        self.ui.compareLegend.text = sentence or self._legend()
        self._moveOrStand()

    # --- inside -----------------------------------------------------------------------------------

    def _followPanel(self) -> None:
        """Brings what is shown to what the panel says."""
        comparison = self._comparison
        if comparison.mode is None:
            return
        first, second = self.volumes()
        if problem(first, second):
            comparison.stop()
            return
        comparison.followsMouse = self.parameters.compareFollow
        options = self.options()
        if (first, second) != (comparison.first, comparison.second):
            comparison.start(first, second, comparison.mode, options)
        elif options != comparison.options:
            comparison.set(options)

    def _choose(self, mode: Mode) -> None:
        """A way to compare; pressed again it ends."""
        if mode is self.mode:
            self.reset()
            return
        self._comparison.followsMouse = self.parameters.compareFollow
        try:
            self._comparison.start(*self.volumes(), mode, self.options())
        except Exception as error:
            slicer.util.errorDisplay(sentenceFor(error), windowTitle="GlideReg")
        self._started = time.monotonic()
        self._animate()
        self.update()

    def _onLayers(self, caller, event) -> None:
        """Somebody fades elsewhere, in *Display* or in a slice view: the slider follows."""
        if self.mode is Mode.FADE and not self._applying and self.parameters is not None:
            percent = 100 * caller.GetForegroundOpacity()
            if abs(percent - self.parameters.compareOpacity) > 0.5:
                self.parameters.compareOpacity = percent

    def _moveOrStand(self) -> None:
        moves = self.mode in ANIMATED
        if moves and not self._timer.isActive():
            self._timer.start()
        elif not moves and self._timer.isActive():
            self._timer.stop()

    def _stand(self) -> None:
        """No timer runs while nobody looks; both volumes are seen meanwhile."""
        if self._timer.isActive():
            self._timer.stop()
            if self.mode in ANIMATED:
                self._comparison.setOpacity(0.5)

    def _animate(self) -> None:
        if self.mode in ANIMATED and self.parameters is not None:
            seconds = time.monotonic() - self._started
            period = self.parameters.comparePeriod
            self._comparison.setOpacity(opacityAt(self.mode, seconds, period))
        else:
            self._timer.stop()

    def _legend(self) -> str:
        """What the colors or the sides are."""
        names = [html.escape(node.GetName()) for node in self.volumes()]
        if self.mode in MASKED + COMPUTED and self.parameters.compareSwapped:
            names.reverse()
        words = {"a": f"<b>{names[0]}</b>", "b": f"<b>{names[1]}</b>"}
        if self.mode is Mode.SPLIT:
            if self.parameters.compareHorizontal:
                return _("Above: {a}. Below: {b}.").format(**words)
            return _("Left: {a}. Right: {b}.").format(**words)
        if self.mode is Mode.RED_CYAN:
            return _(
                "<span style='color:#d02020'>Red</span>: brighter in {a}. "
                "<span style='color:#008b8b'>Cyan</span>: brighter in {b}. Gray: both agree."
            ).format(**words)
        if self.mode is Mode.DIFFERENCE:
            return _(
                "<span style='color:#d9660d'>Orange</span>: {a} is brighter. "
                "<span style='color:#1a73d9'>Blue</span>: {b} is brighter. Black: both agree."
            ).format(**words)
        return _("{a} and {b}").format(**words)
