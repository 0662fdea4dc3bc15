"""What every method must beat: the images as they stand in their files, and the affine start."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..align import initial_alignment
from ..errors import SettingsError
from ..field import DisplacementField
from ..methods import Method, find
from ..methods import names as method_names
from ..prepare import background_value, body_mask, detect_modality, normalize_intensity
from ..progress import Progress
from ..result import Result
from ..settings import Settings
from ..volume import Volume

#: Name -> title in the tables.
BASELINES: dict[str, str] = {"none": "None", "affine": "Affine"}


def title_of(name: str) -> str:
    """What the tables call a method or a baseline. Raises :class:`SettingsError` for no method."""
    return BASELINES.get(name) or find(name).title


def check_names(
    names: tuple[str, ...], options: dict[str, dict[str, Any]] | None = None
) -> dict[str, str]:
    """Name -> why it cannot run here with its ``options`` (by name), for those that cannot. Raises
    :class:`SettingsError` for unknown names, names given twice and no names."""
    if not names or len(set(names)) < len(names):
        raise SettingsError("Name at least one method, and each only once.")
    for name in names:
        if name not in (*BASELINES, *method_names()):
            known = ", ".join((*BASELINES, *method_names()))
            raise SettingsError(f"There is no method '{name}'; choose from {known}.")
    given, methods = options or {}, [name for name in names if name not in BASELINES]
    problems = {name: find(name).missing(given.get(name)) for name in methods}
    return {name: problem for name, problem in problems.items() if problem}


def load(name: str, options: dict[str, Any] | None = None) -> Method | None:
    """The method, its module and packages imported (so that no clock counts that); None for a
    baseline. Raises :class:`SettingsError` when it cannot run here with these options."""
    if name in BASELINES:
        return None
    method = find(name)
    method.require(options)
    method.preload()
    return method


def register_baseline(
    name: str, fixed: Volume, moving: Volume, settings: Settings, progress: Progress
) -> Result:
    """ "none": the identity in LPS mm. "affine": the start that our methods find for themselves."""
    modality = detect_modality(fixed) if settings.modality == "auto" else settings.modality
    normal = [normalize_intensity(volume, modality) for volume in (fixed, moving)]
    bodies = tuple(body_mask(volume, modality) for volume in normal)
    matrix = np.eye(4)
    if name == "affine":
        matrix, _ = initial_alignment(*normal, bodies, modality, progress)
    return Result(
        DisplacementField.zeros(fixed.grid.pooled(8)),
        matrix,
        fixed.grid,
        bodies[0],
        modality,
        background_value(moving, modality),
        {"method": name},
    )
