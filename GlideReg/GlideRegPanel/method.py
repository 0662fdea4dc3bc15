"""Method: the presets as chips, the paper's own, and everything else under Advanced."""

import pathlib
from functools import partial

import slicer
from slicer.i18n import tr as _

from GlideRegScene.parameters import ENCODERS, Features, Preset, Solver

from .section import Section

CHIPS = {
    "fastButton": Preset.FAST,
    "standardButton": Preset.STANDARD,
    "fineButton": Preset.FINE,
}
#: What the button Defaults puts back.
ADVANCED = [
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
_ENCODER_WIDGETS = ["weightsFileEdit", "allowUnverifiedCheck", "reductionCombo"]


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
        self.ui.solverCombo.enabled = not paper  # the paper has one solver
        self.ui.gaussNewtonGroup.visible = not adam
        self.ui.adamGroup.visible = adam
        self.ui.vaeGroup.visible = paper
        hasGlobal = self.parameters.features is not Features.LOCAL
        self.ui.encoderCombo.enabled = hasGlobal
        for name in _ENCODER_WIDGETS:
            getattr(self.ui, name).enabled = hasGlobal and self.parameters.encoder != "none"

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

    @staticmethod
    def _set(widget, name: str, value) -> None:
        """Sets a property without its signal coming back to us."""
        if getattr(widget, name) != value:
            blocked = widget.blockSignals(True)
            setattr(widget, name, value)
            widget.blockSignals(blocked)
