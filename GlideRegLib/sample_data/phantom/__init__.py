"""An analytic thorax phantom: two CTs of one chest at exhale and inhale, with the exact truth."""

from __future__ import annotations

from .pair import PRESETS, PhantomPair, PhantomSettings, make_phantom_pair
from .render import LABEL_NAMES

__all__ = ["LABEL_NAMES", "PRESETS", "PhantomPair", "PhantomSettings", "make_phantom_pair"]
