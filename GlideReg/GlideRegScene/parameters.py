"""What the user chose, kept in the scene: saved and restored with it, edited by the panel.

Parameter ``x`` is bound to the widget of ``GlideReg.ui`` whose ``SlicerParameterName`` is ``x``.
"""

import enum
import pathlib
from typing import Annotated

from slicer import (
    vtkMRMLDisplayableNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
    vtkMRMLTransformNode,
)
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

#: Encoders by their library names, "auto" first; the library checks the name again.
ENCODERS = [
    "auto",
    "none",
    "sam2.1_hiera_tiny",
    "sam2.1_hiera_small",
    "sam2.1_hiera_base_plus",
    "mobile_sam",
    "lite_medsam",
]
#: Methods by their library names; GLIDE-Reg's variants are chosen by features and reduction.
METHODS = [
    "glide",
    "convexadam",
    "samconvex",
    "samreg",
    "dinoreg",
    "dinoreg-sam",
    "unigradicon",
    "unigradicon-io",
    "ants",
    "elastix",
    "fireants",
    "niftyreg",
    "deeds",
    "corrfield",
]
#: Methods that look at slices through the encoder that the user chose.
METHODS_WITH_ENCODER = ("glide", "samconvex", "samreg", "dinoreg-sam")


class _Labeled(enum.Enum):
    """An enumeration whose value is the library's word and whose label is the user's."""

    def label(self) -> str:
        return _LABELS.get(self.value, self.value.capitalize())


class Preset(_Labeled):
    """How fine, how long."""

    FAST = "fast"
    STANDARD = "standard"
    FINE = "fine"
    PAPER = "paper"


class Features(_Labeled):
    """Which features are compared: the method, or one of its ablations."""

    BOTH = "both"
    LOCAL = "local"
    GLOBAL = "global"


class Reduction(_Labeled):
    """How the encoder's 256 channels become 12."""

    DYNAMIC = "dynamic"
    STATIC = "static"
    PCA = "pca"


class Device(_Labeled):
    """Where it is computed."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Modality(_Labeled):
    """What the voxel values are."""

    AUTO = "auto"
    CT = "ct"
    MR = "mr"


class PriorScan(_Labeled):
    """Which volume of the registration is the earlier scan."""

    MOVING = "moving"
    FIXED = "fixed"


class Direction(_Labeled):
    """From which volume of the registration to which things are carried."""

    FORTH = "forth"
    BACK = "back"


class Solver(_Labeled):
    """What refines the field."""

    GAUSS_NEWTON = "gauss-newton"
    ADAM = "adam"


_LABELS = {
    "auto": "Automatic",
    "both": "GLIDE-Reg: global and local features",
    "local": "Local features only (MIND)",
    "global": "Global features only (encoder)",
    "dynamic": "VAE, trained with the registration",
    "static": "VAE, trained before",
    "pca": "PCA",
    "cpu": "CPU",
    "cuda": "GPU (CUDA)",
    "ct": "CT",
    "mr": "MR",
    "moving": "Moving volume",
    "fixed": "Fixed volume",
    "forth": "Moving volume → fixed volume",
    "back": "Fixed volume → moving volume",
    "gauss-newton": "Gauss-Newton",
    "adam": "Adam (as in the paper)",
}


@parameterNodeWrapper
class GlideRegParameterNode:
    """All choices of the panel. Lengths in mm; 0 means the preset's own value where it is said."""

    # Inputs
    fixedVolume: vtkMRMLScalarVolumeNode
    movingVolume: vtkMRMLScalarVolumeNode
    fixedLandmarks: vtkMRMLMarkupsFiducialNode
    movingLandmarks: vtkMRMLMarkupsFiducialNode
    useLandmarks: bool = False  # they guide the registration, too
    initialTransform: vtkMRMLTransformNode
    automaticStart: bool = True
    # Masking: a segmentation (with a segment, "" for all of them) or a label map
    fixedMask: vtkMRMLDisplayableNode
    fixedSegment: str = ""
    movingMask: vtkMRMLDisplayableNode
    movingSegment: str = ""
    # Outputs, created and named after the inputs when left empty
    warpedVolume: vtkMRMLScalarVolumeNode
    transform: vtkMRMLTransformNode
    # Method
    preset: Preset = Preset.STANDARD
    method: Annotated[str, Choice(METHODS)] = "glide"
    features: Features = Features.BOTH
    reduction: Reduction = Reduction.DYNAMIC
    encoder: Annotated[str, Choice(ENCODERS)] = "auto"
    weightsFile: pathlib.Path
    allowUnverified: bool = False
    device: Device = Device.AUTO
    modality: Modality = Modality.AUTO
    spacing: Annotated[float, WithinRange(0.0, 8.0)] = 0.0  # 0: the preset's
    threads: Annotated[int, WithinRange(0, 256)] = 0  # 0: all cores
    seed: Annotated[int, WithinRange(0, 1000000)] = 0
    solver: Solver = Solver.GAUSS_NEWTON
    iterations: Annotated[int, WithinRange(0, 5000)] = 0  # 0: the preset's
    # Energy, Gauss-Newton: alpha acts on the coarsest level; bending is a factor on the preset's
    alpha: Annotated[float, WithinRange(0.0, 100.0)] = 0.15
    beta: Annotated[float, WithinRange(0.0, 100.0)] = 1.0
    bendingFactor: Annotated[float, WithinRange(0.01, 100.0)] = 1.0
    # Energy, Adam: the paper's weights
    adamAlpha: Annotated[float, WithinRange(0.0, 1000.0)] = 0.5
    adamBeta: Annotated[float, WithinRange(0.0, 1000.0)] = 3.5
    adamBending: Annotated[float, WithinRange(0.0, 1000.0)] = 1.25
    # Loss of the VAE: the paper's weights, used by the preset Paper
    reconstruction: Annotated[float, WithinRange(0.0, 1e9)] = 7.5e4
    divergence: Annotated[float, WithinRange(0.0, 1e9)] = 20.0
    # Nodules: points, a segmentation or a label map; dates are not kept
    noduleTransform: vtkMRMLTransformNode  # empty: that of the outputs
    priorScan: PriorScan = PriorScan.MOVING
    priorNodules: vtkMRMLDisplayableNode
    currentNodules: vtkMRMLDisplayableNode
    noduleDays: Annotated[int, WithinRange(0, 100000)] = 0  # between these two scans; 0: not known
    noduleDaysPrior: vtkMRMLScalarVolumeNode
    noduleDaysCurrent: vtkMRMLScalarVolumeNode
    segmentNodules: bool = True
    refineNodules: bool = True
    referenceThresholds: bool = False
    noduleTable: vtkMRMLTableNode
    # Quality: transform and landmarks left empty are those of the inputs and outputs; names of
    # structures that do not count, one a line; profile: a name or a file
    qualityTransform: vtkMRMLTransformNode
    qualityBackward: vtkMRMLTransformNode
    qualityFixedLandmarks: vtkMRMLMarkupsFiducialNode
    qualityMovingLandmarks: vtkMRMLMarkupsFiducialNode
    qualityFixedStructures: vtkMRMLSegmentationNode
    qualityMovingStructures: vtkMRMLSegmentationNode
    qualityLeftOut: str = ""
    qualityProfile: str = "tg132"
    qualityTable: vtkMRMLTableNode
    # Propagate
    propagateTransform: vtkMRMLTransformNode  # empty: that of the outputs
    propagateDirection: Direction = Direction.FORTH
    smoothPropagated: bool = False
    # Compare: two volumes, empty for those of the registration; what can be set, mode by mode
    compareFirst: vtkMRMLScalarVolumeNode
    compareSecond: vtkMRMLScalarVolumeNode
    compareOpacity: Annotated[float, WithinRange(0.0, 100.0)] = 50.0  # percent
    comparePeriod: Annotated[float, WithinRange(0.2, 6.0)] = 1.6  # seconds
    compareTile: Annotated[float, WithinRange(2.0, 100.0)] = 30.0  # mm
    compareSplit: Annotated[float, WithinRange(0.0, 100.0)] = 50.0  # percent of the view
    compareHorizontal: bool = False
    compareFollow: bool = False
    compareRange: Annotated[float, WithinRange(10.0, 3000.0)] = 300.0  # HU, or the images' unit
    compareSwapped: bool = False
    compareTransform: vtkMRMLTransformNode  # whose deformation is drawn; empty: of the outputs


def settingsFromParameters(parameters: GlideRegParameterNode) -> dict:
    """The library's settings as plain values: the preset with what the user changed.

    Raises the library's SettingsError, one sentence with every value that cannot be used, or with
    what the method needs and this computer lacks.
    """
    from GlideRegLib.methods import find
    from GlideRegLib.settings import Settings

    find(parameters.method).require()

    preset = Settings.preset(parameters.preset.value)
    paper = parameters.preset is Preset.PAPER
    solver = "adam" if paper else parameters.solver.value
    weights = str(parameters.weightsFile)
    features = {
        "use": parameters.features.value,
        "encoder": parameters.encoder,
        "weights": None if weights in ("", ".") else weights,  # an unset path reads as "."
        "allow_unverified": parameters.allowUnverified,
    }
    refine = {
        "solver": solver,
        "adam_alpha": parameters.adamAlpha,
        "adam_beta": parameters.adamBeta,
        "adam_bending": parameters.adamBending,
        "levels": [_level(level, parameters, solver) for level in _levels(preset)],
    }
    if solver == "adam" and parameters.iterations:
        refine["adam_iterations"] = parameters.iterations
    data = {
        "preset_name": parameters.preset.value,
        "method": parameters.method,
        "modality": parameters.modality.value,
        "device": parameters.device.value,
        "threads": parameters.threads,
        "seed": parameters.seed,
        "features": features,
        "reduction": {
            "kind": parameters.reduction.value,
            "reconstruction": parameters.reconstruction,
            "divergence": parameters.divergence,
        },
        "refine": refine,
    }
    if parameters.spacing > 0:
        data["grid"] = {"spacing_mm": parameters.spacing}
    if parameters.initialTransform is None and not parameters.automaticStart:
        data["initial"] = "none"
    settings = Settings.from_dict(data)
    settings.check()
    return settings.to_dict()


def _levels(preset) -> list[dict]:
    import dataclasses

    return [dataclasses.asdict(level) for level in preset.refine.levels]


def _level(level: dict, parameters: GlideRegParameterNode, solver: str) -> dict:
    """A level of the preset with the user's weights and number of iterations."""
    if solver == "adam":
        return level
    changed = dict(level, beta=parameters.beta)
    if level["alpha"] > 0:
        changed["alpha"] = parameters.alpha
    changed["bending"] = level["bending"] * parameters.bendingFactor
    if parameters.iterations:
        changed["iterations"] = parameters.iterations
    return changed
