"""What the methods beside GLIDE-Reg share: the same start, the same working grid, the same result.

Every one is given the pair on one isotropic grid in the fixed frame, the moving image resampled
through the initial alignment, and answers with the displacement that is left. So they are compared
on equal terms, and all that a result can do works with each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from .. import machine, provenance
from ..field import DisplacementField
from ..pair import find_start, trusted, understand
from ..prepare import Prepared, background_value, prepare_pair
from ..progress import Progress
from ..result import Result
from ..settings import Settings
from ..volume import Volume

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK

    from ..features.encoders import Encoder

#: Expected share of each stage in the run's time.
_PLAN = {"prepare": 1.0, "align": 2.0, "refine": 15.0, "measure": 2.0}


@dataclass(frozen=True)
class Problem:
    """What a method is to solve. ``prepared`` holds both images on the working grid, on ``device``;
    ``trust`` (fixed, moving), float32 (Z, Y, X), is where the images have data and the user's masks
    let them count; ``masked`` says whether there are such masks. ``options`` are the method's own.
    """

    prepared: Prepared
    trust: tuple[torch.Tensor, torch.Tensor]
    masked: bool
    settings: Settings
    options: Any
    device: str
    threads: int
    progress: Progress

    def images(self) -> tuple[SimpleITK.Image, SimpleITK.Image]:
        """Fixed and moving working images for SimpleITK: LPS mm, HU or scaled MR intensities."""
        tensors = (self.prepared.fixed, self.prepared.moving)
        first, second = (Volume(t.cpu().numpy(), self.prepared.grid).to_sitk() for t in tensors)
        return first, second


@dataclass(frozen=True)
class Solution:
    """A method's answer: ``field`` maps fixed to (initially aligned) moving, LPS mm. ``packages``
    names the PyPI packages that made it, ``encoder`` the encoder that took part."""

    field: DisplacementField
    encoder: Encoder | None = None
    packages: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def run(
    solve: Callable[[Problem], Solution],
    pair: tuple[Volume, Volume],
    settings: Settings,
    progress: Progress,
    masks: tuple[Volume | None, Volume | None] = (None, None),
    multiple: int = 1,
) -> Result:
    """From two volumes to a result by way of ``solve``.

    The sizes of the working grid are multiples of ``multiple``. Of the settings count: the method's
    options, grid, modality, initial, device, threads, seed. Raises a :class:`GlideRegError`.
    """
    from . import find

    started = time.monotonic()
    device = machine.resolve_device(settings.device)
    threads = machine.set_threads(settings.threads)
    options = find(settings.method).options(settings.method_options)
    progress.set_plan(_PLAN)
    with machine.readable_memory_errors():
        with progress.stage("prepare"):
            modality, counted, bodies = understand(*pair, settings, masks)
        with progress.stage("align"):
            initial = find_start(*pair, counted, modality, settings, progress)
        with progress.stage("prepare"):
            size = (settings.grid.spacing_mm, settings.grid.margin_mm)
            prepared = prepare_pair(*pair, initial, *size, modality, counted, multiple).to(device)
            given = tuple(mask is not None for mask in masks)
            trust = tuple(t.float() for t in trusted(prepared, *given))
        with progress.stage("refine"):
            problem = Problem(
                prepared, trust, any(given), settings, options, device, threads, progress
            )
            solution = solve(problem)
        with progress.stage("measure"):
            result = _result(solution, initial, pair, bodies[0], modality)
            quality = result.field_quality()
    seconds = time.monotonic() - started
    report = provenance.build_report(
        result,
        settings,
        solution.encoder,
        quality,
        progress,
        (*pair, *masks),
        device,
        threads,
        seconds,
    )
    versions = {name: metadata.version(name) for name in solution.packages}
    report["provenance"]["versions"].update(versions)
    report.update(solution.facts)
    result.report.update(report)
    return result


def _result(
    solution: Solution,
    initial: np.ndarray,
    pair: tuple[Volume, Volume],
    body: np.ndarray,
    modality: str,
) -> Result:
    """The field on a lattice that covers the fixed image, with what the files need."""
    fixed, moving = pair
    field_ = solution.field.with_zero_border(fixed.grid)
    return Result(field_, initial, fixed.grid, body, modality, background_value(moving, modality))
