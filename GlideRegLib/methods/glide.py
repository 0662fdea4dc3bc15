"""GLIDE-Reg itself and its ablations: the pipeline of this library with some settings changed.

Zhu et al., "GLIDE-Reg: Global-to-Local Deformable Registration Using Co-Optimized Foundation and
Handcrafted Features". The variants are the rows of its Table 3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .. import pipeline
from ..progress import Progress
from ..result import Result
from ..settings import Settings, with_changes
from ..volume import Volume

if TYPE_CHECKING:
    import numpy as np


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    landmark_constraints: tuple[np.ndarray, np.ndarray] | None = None,
) -> Result:
    """The variant that ``settings.method`` names; all else as in :func:`GlideRegLib.register`."""
    from .catalog import METHODS

    name = settings.method
    own = with_changes(replace(settings, method="glide"), **METHODS[name].changes)
    masks = (fixed_mask, moving_mask)
    result = pipeline.register(fixed, moving, own, progress, *masks, landmark_constraints)
    result.report["method"] = name
    result.report["provenance"]["settings"]["method"] = name
    return result
