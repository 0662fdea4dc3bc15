"""The ways to compare two volumes, what can be set about them, and how animations move."""

import enum
import math
from dataclasses import dataclass


class Mode(enum.Enum):
    """What the slice views show of the first and the second volume."""

    FADE = "fade"
    ROCK = "rock"
    FLICKER = "flicker"
    CHECKERBOARD = "checkerboard"
    SPLIT = "split"
    RED_CYAN = "red-cyan"
    DIFFERENCE = "difference"


#: Modes that move by themselves.
ANIMATED = (Mode.ROCK, Mode.FLICKER)
#: Modes in which each pixel shows one of the volumes, and never both.
MASKED = (Mode.CHECKERBOARD, Mode.SPLIT)
#: Modes whose pixels are computed from both volumes.
COMPUTED = (Mode.RED_CYAN, Mode.DIFFERENCE)


@dataclass(frozen=True)
class Options:
    """What can be set about a comparison.

    ``opacity``: of the second volume, 0 to 1. ``tileMm``: side of a tile. ``split``: where the line
    is, 0 to 1 from the left (or from the top, if ``horizontal``); ``through``: a world position
    (RAS mm) through which it goes instead, in every view. ``rangeHu``: the difference, in the
    unit of the volumes, that gets the full color. ``swapped``: the volumes change places.
    """

    opacity: float = 0.5
    tileMm: float = 30.0
    split: float = 0.5
    horizontal: bool = False
    through: tuple[float, float, float] | None = None
    rangeHu: float = 300.0
    swapped: bool = False


def opacityAt(mode: Mode, seconds: float, period: float) -> float:
    """Opacity of the second volume in an animation, a time after its start.

    Rocking goes there and back once in a period, gently; flickering shows each volume for half of
    it. Both begin with the first volume.
    """
    phase = (seconds / period) % 1.0
    if mode is Mode.FLICKER:
        return 0.0 if phase < 0.5 else 1.0
    return 0.5 - 0.5 * math.cos(2 * math.pi * phase)
