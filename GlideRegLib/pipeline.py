"""GLIDE-Reg from two volumes to a result, as Fig. 1 of the paper reads.

files -> volumes on one working grid -> features -> field -> result; each step is its own module.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import machine, memory, provenance
from .compartments import find_compartments
from .confidence import estimate_uncertainty
from .constraints import LandmarkConstraints
from .errors import InputError
from .features.pyramid import FeaturePyramid
from .features.reduction import ReducedFeatures
from .field import DisplacementField
from .optimize.initial import initial_displacements
from .optimize.refine import effective_levels, finest_pooling, refine, repair_threshold
from .optimize.repair import repair_folds
from .optimize.warping import resize_displacement
from .pair import find_start, trusted, understand
from .prepare import Prepared, background_value, prepare_pair, working_grid
from .progress import Progress
from .result import Result
from .settings import Settings
from .volume import Volume

if TYPE_CHECKING:
    from .features.encoders import Encoder

#: Expected share of each stage in the run's time (CPU, seconds per million working voxels).
_PLAN = {"prepare": 1.0, "align": 1.0, "encode": 40.0, "reduce": 4.0, "convex": 1.0}
_PLAN_REFINE = {1: 2.0, 2: 0.6, 4: 0.1, 8: 0.05}


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings | None = None,
    progress: Progress | None = None,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    landmark_constraints: tuple[np.ndarray, np.ndarray] | None = None,
    sliding_labels: Volume | None = None,
) -> Result:
    """Registers ``moving`` to ``fixed``: with GLIDE-Reg (Zhu et al.), or with the method that
    ``settings.method`` names (``methods/``).

    Volumes hold HU (CT) or any MR intensities, on any 3-D grids. Masks (label volumes; non-zero
    counts) restrict what is compared. ``landmark_constraints`` are corresponding fixed and moving
    points, each (N, 3) in LPS mm, that guide the start and the field softly. ``sliding_labels`` is
    a label map in the fixed frame: tissue slides where labels meet. Nothing is modified.
    Returns the field, transforms and measures as a :class:`Result`; raises a
    :class:`GlideRegError` with one sentence otherwise.
    """
    settings = settings or Settings()
    settings.check()
    progress = progress or Progress()
    if settings.method != "glide":
        from .methods import find

        if sliding_labels is not None:
            raise InputError(f"The method '{settings.method}' takes no sliding mask.")
        masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
        return find(settings.method).register(
            fixed, moving, settings, progress, **masks, landmark_constraints=landmark_constraints
        )
    given = (fixed_mask, moving_mask)
    return _glide(fixed, moving, settings, progress, given, landmark_constraints, sliding_labels)


def _glide(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    given: tuple[Volume | None, Volume | None],
    landmark_constraints: tuple[np.ndarray, np.ndarray] | None,
    sliding: Volume | None,
) -> Result:
    """The method itself; arguments as for :func:`register`, ``given`` the masks."""
    guides = None
    if landmark_constraints is not None:
        guides = LandmarkConstraints.checked(landmark_constraints, fixed.grid, moving.grid)
    started = time.monotonic()
    device = machine.resolve_device(settings.device)
    threads = machine.set_threads(settings.threads)
    progress.set_plan(_plan(settings))
    with machine.readable_memory_errors():
        with progress.stage("prepare"):
            modality, masks, bodies = understand(fixed, moving, settings, given)
        with progress.stage("align"):
            initial = find_start(fixed, moving, masks, modality, settings, progress, guides)
        budget = memory.Budget(settings, device, progress)
        budget.fit(lambda chosen: _sizes(fixed, moving, masks[0], chosen))

        def attempt(chosen: Settings) -> tuple:
            with progress.stage("prepare"):
                prepared = _prepared(fixed, moving, initial, masks, modality, chosen).to(device)
                trust = trusted(prepared, *(mask is not None for mask in given))
                slides = find_compartments(prepared, sliding, chosen.refine.lungs_slide)
            encoder, reduced = None, None
            if chosen.uses_global:
                encoder, reduced = _global_features(prepared, chosen, device, progress)
            near = _usable(guides, initial, prepared, progress)
            found = _optimize(prepared, trust, reduced, chosen, progress, near, slides)
            return found, encoder, near

        (field, uncertainty), encoder, near = budget.run(attempt)
        settings = budget.settings
        with progress.stage("measure"):
            result = Result(
                field.with_zero_border(fixed.grid),
                initial,
                fixed.grid,
                bodies[0],
                modality,
                background_value(moving, modality),
                uncertainty=uncertainty,
            )
            quality = result.field_quality()
    report = provenance.build_report(
        result,
        settings,
        encoder,
        quality,
        progress,
        (fixed, moving, *given, sliding),
        device,
        threads,
        time.monotonic() - started,
    )
    report["cost"].update(budget.report())
    result.report.update(report)
    if guides is not None:
        used = 0 if near is None else len(near)
        result.report["landmark_constraints"] = guides.summary(result, used)
    return result


def _usable(
    guides: LandmarkConstraints | None, initial: np.ndarray, prepared: Prepared, progress: Progress
) -> LandmarkConstraints | None:
    """The landmark pairs in the fixed frame that lie on the working grid; says what it leaves."""
    if guides is None:
        return None
    suspects = np.flatnonzero(guides.suspects) + 1
    if len(suspects):
        progress.message(
            f"Landmark constraint {', '.join(map(str, suspects))} contradicts the others; it "
            "counts little: check whether it was placed at the right spot.",
            level="warning",
        )
    near = guides.after(initial).within(prepared.grid)
    if len(near) < len(guides):
        progress.message(
            f"{len(guides) - len(near)} of {len(guides)} landmark constraints lie outside the "
            "region that is registered; they are not used.",
            level="warning",
        )
    return near if len(near) else None


def _global_features(
    prepared: Prepared, settings: Settings, device: str, progress: Progress
) -> tuple[Encoder, ReducedFeatures]:
    """Encodes both images and starts the reduction."""
    from .features.cache import FeatureCache
    from .features.encoders import load_encoder
    from .features.slices import encode_volume, foreground_cells, plan_slices

    with progress.stage("encode"):
        encoder = load_encoder(
            settings.features.encoder,
            weights=settings.features.weights,
            device=device,
            random_weights=settings.features.random_weights,
            seed=settings.seed,
            progress=progress,
            allow_unverified=settings.features.allow_unverified,
        )
        plan = plan_slices(prepared.grid, encoder, settings.features)
        cache = FeatureCache(enabled=settings.features.cache)
        volumes, shares = [], []
        for k, (image, body) in enumerate(
            ((prepared.fixed, prepared.fixed_mask), (prepared.moving, prepared.moving_mask))
        ):
            volumes.append(
                encode_volume(
                    image,
                    body,
                    prepared.grid,
                    plan,
                    encoder,
                    settings.features,
                    prepared.modality,
                    cache,
                    progress,
                    (k / 2, (k + 1) / 2),
                )
            )
            shares.append(foreground_cells(body, prepared.grid, plan))
    with progress.stage("reduce"):
        reduced = ReducedFeatures(
            *volumes, *shares, plan.cells, settings.reduction, settings.seed, progress.check
        )
    return encoder, reduced


def _optimize(
    prepared: Prepared,
    trust: tuple[torch.Tensor, torch.Tensor],
    reduced: ReducedFeatures | None,
    settings: Settings,
    progress: Progress,
    guides: LandmarkConstraints | None = None,
    compartments: torch.Tensor | None = None,
) -> tuple[DisplacementField, Volume | None]:
    """Convex stage, refinement, repair: the field on the last level's grid, LPS mm; and its
    uncertainty, if that is wanted."""
    use_global, use_local = reduced is not None, settings.uses_local
    sigma = settings.refine.landmark_sigma_mm
    pyramid = FeaturePyramid(
        prepared,
        trust,
        settings.features,
        reduced,
        progress.check,
        guides,
        sigma,
        finest_pooling(settings.refine),
        compartments,
    )
    with progress.stage("convex"):
        starts = initial_displacements(pyramid, settings.convex, use_global, use_local, progress)
    with progress.stage("refine"):
        displacement, pooling = refine(
            pyramid, starts, settings.refine, use_global, use_local, progress
        )
        # Half the working resolution is kept: a smooth field loses nothing that can be measured
        # (README), and the files are eight times smaller.
        pooling, displacement = _stored(pooling, displacement)
        threshold = repair_threshold(pyramid, settings.refine)
        if threshold > 0:
            displacement, count = repair_folds(displacement, threshold)
            if count:
                progress.message(f"Local repair of the field at {count} nodes.")
        field = DisplacementField.from_voxels(displacement, pyramid.grid_at(pooling))
        confidence = settings.confidence
        uncertainty = estimate_uncertainty(pyramid, field, progress.check) if confidence else None
    return field, uncertainty


def _stored(pooling: int, displacement: torch.Tensor) -> tuple[int, torch.Tensor]:
    """The displacement on the grid that the result keeps: the working grid pooled by 2 or more."""
    if pooling >= 2:
        return pooling, displacement
    shape = tuple(n // 2 for n in displacement.shape[1:])
    return 2, resize_displacement(displacement, shape)


def _sizes(fixed: Volume, moving: Volume, mask: np.ndarray, settings: Settings) -> memory.Sizes:
    """The grids that decide how much memory some settings need."""
    grid = settings.grid
    working = working_grid(fixed.grid, mask, grid.spacing_mm, grid.margin_mm, _multiple(settings))
    return memory.Sizes(fixed.grid, moving.grid, working)


def _prepared(
    fixed: Volume,
    moving: Volume,
    initial: np.ndarray,
    masks: tuple[np.ndarray, np.ndarray],
    modality: str,
    settings: Settings,
) -> Prepared:
    """Both images on the working grid of some settings."""
    grid = settings.grid
    multiple = _multiple(settings)
    return prepare_pair(
        fixed, moving, initial, grid.spacing_mm, grid.margin_mm, modality, masks, multiple
    )


def _multiple(settings: Settings) -> int:
    """What the working grid's sizes must be divisible by: every pooling factor in use."""
    factors = [16, settings.refine.adam_pooling]
    factors += [p for p, _ in (*settings.convex.global_levels, *settings.convex.local_levels)]
    return int(np.lcm.reduce(factors))


def _plan(settings: Settings) -> dict[str, float]:
    plan = dict(_PLAN)
    if not settings.uses_global:
        del plan["encode"], plan["reduce"]
    if settings.refine.solver == "adam":
        plan["refine"] = 0.3 * settings.refine.adam_iterations
    else:
        levels = effective_levels(settings.refine.levels, settings.uses_global, settings.uses_local)
        plan["refine"] = sum(v.iterations * _PLAN_REFINE[v.pooling] for v in levels)
    plan["measure"] = 1.0
    return plan
