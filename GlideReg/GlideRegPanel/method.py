"""Method: the presets as chips, the paper's own, and everything else under Advanced."""

import pathlib
from functools import partial

import qt
import slicer
from slicer.i18n import tr as _

from GlideRegScene.parameters import (
    ENCODERS,
    METHODS,
    METHODS_WITH_ENCODER,
    Features,
    Preset,
    Solver,
)

from .section import Section

CHIPS = {
    "fastButton": Preset.FAST,
    "standardButton": Preset.STANDARD,
    "fineButton": Preset.FINE,
}
#: What the button Defaults puts back.
ADVANCED = [
    "method",
    "features",
    "encoder",
    "weightsFile",
    "allowUnverified",
    "device",
    "modality",
    "reduction",
    "spacing",
    "solver",
    "iterations",
    "threads",
    "seed",
    "alpha",
    "beta",
    "bendingFactor",
    "adamAlpha",
    "adamBeta",
    "adamBending",
    "reconstruction",
    "divergence",
]
#: What takes no part with the preset Paper or without an encoder, by parameter.
_ENCODER_WIDGETS = ["weightsFileEdit", "allowUnverifiedCheck"]
#: What only GLIDE-Reg knows.
_OWN_WIDGETS = ["featuresCombo", "paperCheck", "iterationsBox", "gaussNewtonGroup", "adamGroup"]


class MethodSection(Section):
    """Chips and visibility; the plain values are connected by their SlicerParameterName."""

    def __init__(self, ui) -> None:
        super().__init__(ui)
        self._chipBeforePaper = Preset.STANDARD
        for name, preset in CHIPS.items():
            getattr(ui, name).connect("clicked()", partial(self.choose, preset))
        ui.paperCheck.connect("toggled(bool)", self._onPaper)
        ui.weightsFileEdit.connect("currentPathChanged(QString)", self._onWeightsFile)
        ui.defaultsButton.connect("clicked()", self.restoreDefaults)

    def bind(self, parameters) -> None:
        super().bind(parameters)
        if parameters is not None:
            self._nameEncoders()
            self._nameMethods()

    def choose(self, preset: Preset) -> None:
        """Takes a preset, whatever was chosen before."""
        if self.parameters is not None:
            self.parameters.preset = preset
        self.update()  # also when nothing changed: a click on the chosen chip must not release it

    def update(self) -> None:
        if self.parameters is None:
            return
        preset = self.parameters.preset
        paper = preset is Preset.PAPER
        if not paper:
            self._chipBeforePaper = preset
        for name, chip in CHIPS.items():
            getattr(self.ui, name).checked = chip is preset
        self._set(self.ui.paperCheck, "checked", paper)
        self._set(self.ui.weightsFileEdit, "currentPath", self._weightsText())
        adam = paper or self.parameters.solver is Solver.ADAM
        own = self.parameters.method == "glide"
        for name in _OWN_WIDGETS:
            getattr(self.ui, name).enabled = own
        self.ui.solverCombo.enabled = own and not paper  # the paper has one solver
        self.ui.gaussNewtonGroup.visible = not adam
        self.ui.adamGroup.visible = adam
        self.ui.vaeGroup.visible = paper
        self._updateEncoder(own)

    def _updateEncoder(self, own: bool) -> None:
        hasGlobal = self.parameters.features is not Features.LOCAL
        encodes = hasGlobal if own else self.parameters.method in METHODS_WITH_ENCODER
        self.ui.encoderCombo.enabled = encodes
        encodes = encodes and self.parameters.encoder != "none"
        for name in _ENCODER_WIDGETS:
            getattr(self.ui, name).enabled = encodes
        self.ui.reductionCombo.enabled = encodes and own

    def restoreDefaults(self) -> None:
        """Puts everything under Advanced back; Fast, Standard and Fine stay as they are."""
        if self.parameters is None:
            return
        with slicer.util.NodeModify(self.parameters.parameterNode):
            for name in ADVANCED:
                self.parameters.setValue(name, self.parameters.default(name).value)
            if self.parameters.preset is Preset.PAPER:
                self.parameters.preset = self._chipBeforePaper
        self.update()

    def _weightsText(self) -> str:
        path = str(self.parameters.weightsFile)
        return "" if path == "." else path  # an unset path reads as "."

    def _onPaper(self, on: bool) -> None:
        self.choose(Preset.PAPER if on else self._chipBeforePaper)

    def _onWeightsFile(self, text: str) -> None:
        if self.parameters is not None:
            self.parameters.weightsFile = pathlib.Path(text)

    def _nameEncoders(self) -> None:
        """The list shows people's words; Slicer's connector goes by the position only."""
        words = {"auto": _("Automatic"), "none": _("No encoder"), "mobile_sam": "MobileSAM"}
        words["lite_medsam"] = "LiteMedSAM"
        for size in ("tiny", "small", "base_plus"):
            words[f"sam2.1_hiera_{size}"] = f"SAM 2.1 {size.replace('_', ' ')}"
        for index, name in enumerate(ENCODERS):
            self.ui.encoderCombo.setItemText(index, words.get(name, name))

    def _nameMethods(self) -> None:
        """Titles; what is not on this computer stays in the list, with how to get it."""
        from GlideRegLib.methods import find

        for index, name in enumerate(METHODS):
            method = find(name)
            missing = method.missing()
            title = _("{method} (not installed)").format(method=method.title)
            self.ui.methodCombo.setItemText(index, title if missing else method.title)
            tip = method.paper if missing is None else f"{missing}\n\n{method.paper}"
            self.ui.methodCombo.setItemData(index, tip, qt.Qt.ToolTipRole)

    @staticmethod
    def _set(widget, name: str, value) -> None:
        """Sets a property without its signal coming back to us."""
        if getattr(widget, name) != value:
            blocked = widget.blockSignals(True)
            setattr(widget, name, value)
            widget.blockSignals(blocked)
