"""How the deformation of any transform is drawn: sizes that fit it, and what can be set by hand.

Everything is kept in Slicer's own transform display node, so it is saved with the scene.
"""

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer

from ..display import deformationDisplay
from ..transforms import displacementImage, sampledDisplacements

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
    return Drawing(spacing, scale, contourLevels(lengths), longest)


def contourLevels(lengths: np.ndarray) -> tuple[float, ...]:
    """Round lengths (mm) among those that occur: where everything moves alike, as after a shift of
    the table, they lie closer together."""
    low, high = np.percentile(lengths, (10, 90))
    longest = float(lengths.max())
    spread = max(float(high - low), longest / 20)
    step = next((s for s in _STEPS if spread / s <= 8), _STEPS[-1])
    first = max(1, math.floor(low / step))
    last = math.floor(longest / step + 1e-6)
    return tuple(round(step * k, 3) for k in range(first, last + 1)) or (round(longest, 3),)


def displacementLengths(transformNode, volume=None) -> np.ndarray:
    """Lengths of the displacements of a transform node in mm, inside a volume (default: the fixed
    one): at the points of its grid, or at samples where it is none.

    The border of a grid, where it fades to zero, would tell too little. Empty when there is no
    place to look at.
    """
    volume = volume or transformNode.GetNodeReference(transformNode.GetFixedNodeReferenceRole())
    isGrid = transformNode.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
    if isGrid is not None:
        image = displacementImage(transformNode)
    elif volume is not None:
        image = sampledDisplacements(transformNode, volume)
    else:
        return np.zeros(0)
    vectors = sitk.GetArrayFromImage(image)
    lengths = np.linalg.norm(vectors, axis=-1)
    inside = _insideOf(volume, image) if volume is not None else np.ones(lengths.shape, bool)
    return lengths[inside] if inside.any() else lengths.ravel()


def _insideOf(volume, image: sitk.Image) -> np.ndarray:
    """Which voxels (K, J, I) of an ITK image lie within the bounds of a volume."""
    from GlideRegLib.geometry import Grid, flip_lps_ras

    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    matrix = Grid.from_sitk(image).matrix
    matrix[:3] = flip_lps_ras(matrix[:3].T).T
    k, j, i = np.ogrid[tuple(slice(n) for n in reversed(image.GetSize()))]
    inside = np.ones(tuple(reversed(image.GetSize())), bool)
    for axis in range(3):
        along_i, along_j, along_k, origin = matrix[axis]
        place = along_i * i + along_j * j + along_k * k + origin
        inside &= (place >= bounds[2 * axis]) & (place <= bounds[2 * axis + 1])
    return inside


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
