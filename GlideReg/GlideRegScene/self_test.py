"""A small pair with a known shift, for the module's self test and for trying it without data."""

import numpy as np
import slicer

_SHAPE = (64, 96, 96)
_SPACING = 3.0


def makeShiftedPair():
    """A torso-like fixed volume with an organ, and the same moved by a known shift.

    Returns the fixed node, the moving node, and the shift in RAS mm (fixed to moving).
    """
    shift = np.array([6.0, -9.0, 3.0])
    return _volume("Fixed", np.zeros(3)), _volume("Moving", shift), shift


def _volume(name: str, shift: np.ndarray):
    """HU values: air, a body ellipsoid, textured organ spheres; moved by ``shift`` (RAS mm)."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in _SHAPE], indexing="ij")
    center = (np.asarray(_SHAPE[::-1]) - 1) / 2
    ras = [(index - c) * _SPACING - s for index, c, s in zip((i, j, k), center, shift, strict=True)]
    r, a, s = ras
    body = (r / 120) ** 2 + (a / 100) ** 2 + (s / 85) ** 2 < 1
    texture = 60 * np.sin(r / 9) * np.sin(a / 11) * np.sin(s / 8)
    values = np.where(body, 40 + texture, -1000.0)
    for where, radius, value in (
        ((-50, 0, 0), 38, -800),
        ((50, 5, 0), 38, -780),
        ((0, 45, 20), 16, 250),
    ):
        inside = sum((axis - w) ** 2 for axis, w in zip(ras, where, strict=True)) < radius**2
        values[inside] = value + texture[inside]
    node = slicer.util.addVolumeFromArray(values.astype(np.int16), name=name)
    node.SetSpacing([_SPACING] * 3)
    node.SetOrigin((-center * _SPACING).tolist())
    return node


def checkResult(test, transformNode, shift: np.ndarray) -> None:
    """Fails the test unless the transform finds the shift within 1 mm, both ways."""
    points = np.array([[30.0, 20.0, 10.0], [-60.0, 10.0, 5.0], [0.0, 45.0, 20.0]])
    forward, back = transformNode.GetTransformFromParent(), transformNode.GetTransformToParent()
    for point in points:
        moved = np.asarray(forward.TransformPoint(point))
        test.assertLess(np.linalg.norm(moved - point - shift), 1.0)
        test.assertLess(np.linalg.norm(np.asarray(back.TransformPoint(moved)) - point), 0.05)
