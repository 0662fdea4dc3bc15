"""Result: the measures that stay with the transform node, also after saving and loading."""

import json

import numpy as np
from slicer.i18n import tr as _

from GlideRegScene import display, results, shown, transforms
from GlideRegScene.landmarks import tableErrors, worstLandmark
from GlideRegScene.nodes import isInScene

from . import wording
from .section import Section

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}


class ResultSection(Section):
    """Shows the result whose transform is chosen in Outputs."""

    def __init__(self, ui) -> None:
        super().__init__(ui)
        ui.worstButton.connect("clicked()", self.jumpToWorst)
        ui.tableButton.connect("clicked()", self.showTable)

    @property
    def transform(self):
        """The chosen transform if it is a result of this module, else None."""
        node = self.parameters.transform if self.parameters is not None else None
        return node if node is not None and transforms.isOurs(node) else None

    def update(self) -> None:
        summary = _summary(self.transform)
        self.ui.resultHint.visible = summary is None
        self.ui.resultContents.visible = summary is not None
        if summary is not None:
            self._showLandmarks(summary)
            self._showField(summary)

    def _showLandmarks(self, summary: dict) -> None:
        table = self.transform.GetNodeReference(results.TABLE_ROLE)
        table = table if isInScene(table) else None
        errors = _errors(table, summary)
        for name in ("treMean", "treMedian"):
            getattr(self.ui, f"{name}Label").visible = errors is not None
            getattr(self.ui, f"{name}Value").visible = errors is not None
        if errors is not None:
            self.ui.treMeanValue.text = _("{before:.2f} → {after:.2f} mm ({n} landmarks)").format(
                before=errors["mean"][0], after=errors["mean"][1], n=errors["n"]
            )
            self.ui.treMedianValue.text = _("{before:.2f} → {after:.2f} mm").format(
                before=errors["median"][0], after=errors["median"][1]
            )
        for name in ("worstLabel", "worstValue", "worstButton", "tableButton"):
            getattr(self.ui, name).visible = table is not None
        if table is not None:
            label, _position, error = worstLandmark(table)
            self.ui.worstValue.text = _("{label}: {error:.1f} mm").format(label=label, error=error)

    def _showField(self, summary: dict) -> None:
        quality = summary["quality"]
        folding, jacobian = quality["folding_percent"], quality["jacobian"]
        self.ui.foldingValue.text = _("{body} in the body, {grid} in the grid").format(
            body=wording.percent(folding["body"]), grid=wording.percent(folding["grid"])
        )
        self.ui.jacobianValue.text = _("{low:.2f} to {high:.2f} (1 is no change)").format(
            low=jacobian["min"], high=jacobian["max"]
        )
        device = summary["device"].partition(":")[0]
        self.ui.timeValue.text = _("{time} on {device}").format(
            time=wording.secondsTaken(summary["seconds"]), device=_DEVICES.get(device, device)
        )
        encoder = summary["encoder"]["name"]
        self.ui.encoderUsedValue.text = _("{method}, {encoder}, {modality}").format(
            method=_methodUsed(summary),
            encoder=_("no encoder") if encoder == "none" else encoder,
            modality=summary["modality"].upper(),
        )

    def jumpToWorst(self) -> None:
        """Centers the slice views on the worst landmark."""
        if self.transform is not None:
            display.jumpToWorstLandmark(self.transform)

    def showTable(self) -> None:
        """Table and plot of the landmark errors, in a layout that has both."""
        if self.transform is not None:
            shown.showTableAndPlot(self.transform)


def _methodUsed(summary: dict) -> str:
    """The preset of our own method; the name of another one, whose presets say only the grid."""
    name = summary.get("method", "glide")  # results of the first versions had no other
    if name == "glide":
        return summary["preset"].capitalize()
    from GlideRegLib.methods import find

    return find(name).title


def _summary(transform) -> dict | None:
    """What results.summary wrote; None for other transforms and for a damaged attribute."""
    if transform is None:
        return None
    try:
        summary = json.loads(transform.GetAttribute(transforms.ATTRIBUTE))
    except ValueError:
        return None
    return summary if isinstance(summary, dict) and "quality" in summary else None


def _errors(table, summary: dict) -> dict | None:
    """Mean and median TRE (before, after) in mm and the number of landmarks, or None."""
    if table is not None:
        errors = tableErrors(table)
        pair = (errors.before, errors.after)
        return {
            "mean": [float(np.mean(values)) for values in pair],
            "median": [float(np.median(values)) for values in pair],
            "n": len(errors.after),
        }
    tre = summary["quality"].get("tre_mm")
    if not tre:
        return None
    found = {name: [tre["before"][name], tre["after"][name]] for name in ("mean", "median")}
    return {**found, "n": tre["after"]["n"]}
