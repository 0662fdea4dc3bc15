"""Pairs with known truth from real chest CTs: semi-synthetic, to be named so in every table."""

from __future__ import annotations

from .motion import SmoothMotion
from .pair import (
    MotionSettings,
    SemiSyntheticPair,
    lidc_pair,
    pair_from_breathing,
    pair_from_landmarks,
    popi_pair,
)

__all__ = [
    "MotionSettings",
    "SemiSyntheticPair",
    "SmoothMotion",
    "lidc_pair",
    "pair_from_breathing",
    "pair_from_landmarks",
    "popi_pair",
]
