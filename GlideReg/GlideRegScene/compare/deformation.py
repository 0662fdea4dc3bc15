"""How the deformation of any transform is drawn: sizes that fit it, and what can be set by hand.

Everything is kept in Slicer's own transform display node, so it is saved with the scene.
"""

import math
from dataclasses import dataclass

import numpy as np
import slicer

from ..display import deformationDisplay
from ..transforms import displacementLattice, sampledDisplacements

#: The usual arrow is at most this many times as long as arrows are apart.
_LONGEST_ARROW = 1.5
#: What is shorter is enlarged until it can be seen, mm, at most by _MOST percent.
_SEEN_MM, _MOST = 6.0, 1000
#: Steps that people read easily.
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Drawing:
    """What can be set about the drawing of a deformation.

    ``spacingMm``: between grid lines and between arrows. ``scalePercent``: 100 draws displacements
    as long as they are. ``levelsMm``: lengths at which contours are drawn. ``longestMm``: the
    longest displacement that was found, for information.
    """

    spacingMm: float = 12.0
    scalePercent: float = 100.0
    levelsMm: tuple[float, ...] = ()
    longestMm: float = 0.0


def suggested(transformNode, volume=None) -> Drawing:
    """A drawing that fits the size of the displacements of a transform.

    Arrows and grid lines stay 12 mm apart, or as far as long displacements need so that arrows do
    not cover each other. Very small displacements are enlarged. Contours lie at round numbers.
    ``volume``: where transforms that are no grid are sampled; default: the fixed volume.
    """
    lengths = displacementLengths(transformNode, volume)
    longest = float(lengths.max()) if lengths.size else 0.0
    if longest < 1e-3:
        return Drawing(longestMm=longest)
    usual = max(float(np.percentile(lengths, 95)), longest / 4)
    spacing = float(np.clip(math.ceil(usual / _LONGEST_ARROW), 12, 30))
    scale = 100.0
    if longest < _SEEN_MM:
        scale = float(min(_MOST, 100 * math.floor(_SEEN_MM / longest)))
    return Drawing(spacing, scale, contourLevels(longest), longest)


def contourLevels(longest: float) -> tuple[float, ...]:
    """Four to ten round lengths (mm) up to the longest displacement."""
    step = next((s for s in _STEPS if longest / s <= 10), _STEPS[-1])
    return tuple(round(step * k, 3) for k in range(1, math.floor(longest / step + 1e-6) + 1))


def displacementLengths(transformNode, volume=None) -> np.ndarray:
    """Lengths of the displacements of a transform node in mm: at its grid, or sampled around a
    volume when it is none. Empty when there is no place to look at."""
    if transformNode.GetTransformFromParentAs("vtkOrientedGridTransform", False, True) is not None:
        vectors, _ = displacementLattice(transformNode)
        return np.linalg.norm(vectors.reshape(-1, 3), axis=1)
    role = transformNode.GetFixedNodeReferenceRole()
    volume = volume or transformNode.GetNodeReference(role)
    if volume is None:
        return np.zeros(0)
    import SimpleITK as sitk

    vectors = sitk.GetArrayFromImage(sampledDisplacements(transformNode, volume))
    return np.linalg.norm(vectors.reshape(-1, 3), axis=1)


def drawn(transformNode) -> Drawing:
    """How a transform is drawn now."""
    display = transformNode.GetDisplayNode()
    if display is None:
        return Drawing()
    levels = display.GetContourLevelsMmAsString() or ""
    return Drawing(
        display.GetGridSpacingMm(),
        display.GetGridScalePercent(),
        tuple(float(level) for level in levels.split()),
    )


def draw(transformNode, drawing: Drawing) -> None:
    """Draws a transform so, in its three modes alike; what is visible stays visible.

    Line and arrow widths follow the spacing.
    """
    display = deformationDisplay(transformNode)
    with slicer.util.NodeModify(display):  # every single change would redraw all views
        display.SetGridSpacingMm(drawing.spacingMm)
        # Lines are divided into whole pieces: a quarter of the spacing, at the most 4 mm.
        display.SetGridResolutionMm(drawing.spacingMm / max(3, math.ceil(drawing.spacingMm / 4)))
        display.SetGridLineDiameterMm(drawing.spacingMm / 8)
        display.SetGridScalePercent(drawing.scalePercent)
        display.SetGlyphSpacingMm(drawing.spacingMm)
        display.SetGlyphDiameterMm(drawing.spacingMm / 5)
        display.SetGlyphScalePercent(drawing.scalePercent)
        if drawing.levelsMm:
            display.SetContourLevelsMmFromString(" ".join(f"{v:g}" for v in drawing.levelsMm))


def levelsFrom(text: str) -> tuple[float, ...]:
    """Contour levels as a person writes them: "2, 5 10". Raises InputError, one sentence."""
    from GlideRegLib.errors import InputError

    try:
        levels = tuple(sorted({float(word) for word in text.replace(",", " ").split()}))
    except ValueError:
        raise InputError(
            "Contour levels are numbers in mm, separated by spaces, for example: 2 5 10."
        ) from None
    if not levels or levels[0] <= 0 or not math.isfinite(levels[-1]):
        raise InputError("Give at least one contour level, in mm and above 0, for example: 2 5 10.")
    return levels
