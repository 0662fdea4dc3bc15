"""Colors of the Jacobian overlay: what folds must not look like what shrinks."""

import numpy as np
import slicer

#: Scenes that were saved with the colors of an earlier version hold those under another tag.
_TAG = "GlideRegJacobianLogColors"
#: The determinants at the two ends of the color table.
RANGE = (0.0, 3.0)
_FOLDED = (1.0, 0.0, 1.0)
#: Logarithm of the determinant -> red, green, blue: half and twice the volume are equally far from
#: the white of no change.
_POINTS = (
    (-np.log(3.0), (0.02, 0.10, 0.40)),
    (-np.log(3.0) / 2, (0.26, 0.58, 0.76)),
    (0.0, (0.97, 0.97, 0.97)),
    (np.log(3.0) / 2, (0.84, 0.38, 0.30)),
    (np.log(3.0), (0.40, 0.0, 0.12)),
)
_COUNT = 256


def jacobianColors(scene):
    """The color table of the Jacobian overlay, one per scene: 0 and below magenta, then blue (the
    tissue shrinks; darkest at a third), white at 1, red (it grows) up to 3."""
    node = scene.GetSingletonNode(_TAG, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetSingletonTag(_TAG)
    node.SetName("GlideReg Jacobian")
    node.SetTypeToUser()
    node.SetNumberOfColors(_COUNT)
    node.SetHideFromEditors(True)
    determinants = np.linspace(*RANGE, _COUNT)
    places = [value for value, _ in _POINTS]
    rgb = np.array([color for _, color in _POINTS])
    for k, value in enumerate(determinants):
        color = [np.interp(np.log(value), places, rgb[:, c]) for c in range(3)] if k else _FOLDED
        label = "folded" if k == 0 else f"{value:.2f}"
        node.SetColor(k, label, *(float(c) for c in color), 1.0)
    return scene.AddNode(node)
