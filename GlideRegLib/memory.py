"""How much memory a registration will need, and what it can do without when there is less.

The prediction is the largest of the run's stages; each is what the process holds anyway, the
images, and so many bytes for each voxel that the stage works on. The numbers were fitted to
measured peaks of whole runs on the CPU (two threads); for a GPU they were never measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from . import machine
from .errors import MemoryExceededError
from .geometry import Grid
from .progress import Progress
from .settings import Settings

#: Limit of ``--low-memory``, MiB.
LOW_MEMORY_MB = 8192.0
#: The spacing is not made coarser than this, mm, nor an encoder cell larger.
COARSEST_SPACING_MM = 6.0
COARSEST_CELL_MM = 24.0
SMALLEST_SIDE = 256
#: Ratio of one step of the working spacing.
COARSER = 4 / 3

#: MiB that Python, PyTorch, SimpleITK and SciPy hold once the pair is aligned.
_PROCESS = 425.0
#: Bytes per voxel of both images: while they are aligned, resampled, and afterwards.
_INPUT_ALIGN = 13.4
_INPUT_PREPARE = 9.0
_INPUT_KEPT = 5.0
#: Bytes per working voxel while it is made, and at the worst level of each solver.
_WORKING_PREPARE = 33.0
_WORKING_KEPT = 24.0
_WORKING_REFINE = 73.0
_WORKING_REFINE_FULL = 106.0
_WORKING_ADAM = 108.0
#: While the field is measured: bytes per working voxel (what the allocator has not given back),
#: per node of the field's lattice, per fixed voxel.
_WORKING_MEASURE = 63.0
_NODE = 26.0
_FIXED_MEASURE = 3.0
#: The motion at the field's edge that the prediction assumes, mm: the lattice reaches further.
_EDGE_MOTION_MM = 30.0
#: MiB for an encoder (MobileSAM); bytes per pixel that it sees at once, per pixel of all slices of
#: one image, and per feature cell (256 channels, both images) during and afterwards.
_ENCODER = 100.0
_ENCODER_PIXEL = 210.0
_SLICE_PIXEL = 30.0
_CELL_ENCODE = 1024.0
_CELL_KEPT = 800.0
#: Pixels of an encoder cell: stride 16.
_CELL_PIXELS = 256
#: Slices that the encoder sees at once (as in ``features.slices``, which needs torch).
BATCH = {"cpu": 1, "cuda": 16}
#: MiB of the GPU that its libraries take.
_CUDA = 500.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Sizes:
    """What decides the need: voxels of both images and of the working grid, extents in mm."""

    fixed: Grid
    moving: Grid
    working: Grid


_NOTHING = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def predicted_mb(settings: Settings, sizes: Sizes, device: str = "cpu") -> float:
    """The largest resident memory of a registration on the CPU, or what it takes of a GPU, MiB."""
    if device == "cuda":
        needs = stage_needs_mb(settings, replace(sizes, fixed=_NOTHING, moving=_NOTHING), device)
        return _CUDA + max(needs["refine"], needs.get("encode", 0.0))
    return _PROCESS + max(stage_needs_mb(settings, sizes).values())


def stage_needs_mb(settings: Settings, sizes: Sizes, device: str = "cpu") -> dict[str, float]:
    """MiB that each stage needs beyond what the process holds anyway."""
    inputs = sizes.fixed.voxel_count + sizes.moving.voxel_count
    working = sizes.working.voxel_count
    kept = _INPUT_KEPT * inputs
    needs = {
        "align": _INPUT_ALIGN * inputs,
        "prepare": _INPUT_PREPARE * inputs + _WORKING_PREPARE * working,
        "refine": kept + _refine_bytes(settings) * working,
        "measure": kept
        + _NODE * _lattice_nodes(settings, sizes.fixed)
        + _WORKING_MEASURE * working
        + _FIXED_MEASURE * sizes.fixed.voxel_count,
    }
    if settings.uses_global:
        pixels, slices = _encoder_sizes(settings, sizes.working)
        cells = slices * pixels / _CELL_PIXELS
        encoder = _ENCODER * 2**20
        needs["encode"] = kept + encoder + _WORKING_KEPT * working + _CELL_ENCODE * cells
        needs["encode"] += pixels * (_SLICE_PIXEL * slices + _ENCODER_PIXEL * BATCH[device])
        for name in ("refine", "measure"):
            needs[name] += encoder + _CELL_KEPT * cells
    return {name: need / 2**20 for name, need in needs.items()}


def _refine_bytes(settings: Settings) -> float:
    """Bytes per working voxel of the refinement."""
    if settings.refine.solver == "adam":
        return _WORKING_ADAM * (2 / settings.refine.adam_pooling) ** 3
    full = any(level.pooling == 1 for level in settings.refine.levels)
    return _WORKING_REFINE_FULL if full else _WORKING_REFINE


def _lattice_nodes(settings: Settings, fixed: Grid) -> float:
    """Nodes of the field's lattice: half the working resolution, and a border that fades out."""
    spacing = 2 * settings.grid.spacing_mm
    return math.prod(((fixed.extent + 2 * math.pi * _EDGE_MOTION_MM) / spacing + 2).tolist())


def _encoder_sizes(settings: Settings, working: Grid) -> tuple[float, float]:
    """Pixels of one encoder input, and slices of a volume (as ``plan_slices`` cuts it)."""
    chosen = settings.features
    slices = working.size[2] / _slab(chosen.slice_mm, working.spacing[2])
    if chosen.input_side:
        return float(chosen.input_side**2), slices
    cells = np.ceil(working.extent[:2] / chosen.cell_mm / 2 - 1e-6) * 2
    return _CELL_PIXELS * math.prod(cells.tolist()), slices


def _slab(slice_mm: float, spacing_mm: float) -> int:
    """How many working slices are averaged into one for the encoder."""
    return 2 ** max(0, math.floor(math.log2(slice_mm / spacing_mm + 1e-6)))


# --- what can be left out -------------------------------------------------------------------------


def ladder(settings: Settings) -> Iterator[tuple[Settings, str]]:
    """Settings that need less and less, each with the sentence that says what was given up."""
    levels = settings.refine.levels
    if settings.refine.solver == "gauss-newton" and levels[-1].pooling == 1 and len(levels) > 1:
        settings = replace(settings, refine=replace(settings.refine, levels=levels[:-1]))
        yield (
            settings,
            "the full-resolution level is left out, and the field keeps half the resolution",
        )
    moved = True
    while moved:
        moved = False
        coarser = _coarser(settings)
        if coarser is not None:
            settings = coarser
            spacing = settings.grid.spacing_mm
            yield settings, f"the working spacing is made coarser ({spacing:g} mm)"
            moved = True
        smaller = _half_input(settings)
        if smaller is not None:
            settings = smaller
            yield settings, "the encoder gets images of half the size"
            moved = True


def _coarser(settings: Settings) -> Settings | None:
    """A coarser working grid; as many of its slices as before make one for the encoder."""
    spacing = round(settings.grid.spacing_mm * COARSER, 2)
    if spacing > COARSEST_SPACING_MM:
        return None
    chosen = settings.features
    thickness = spacing * _slab(chosen.slice_mm, settings.grid.spacing_mm)
    return replace(
        settings,
        grid=replace(settings.grid, spacing_mm=spacing),
        features=replace(chosen, slice_mm=min(max(chosen.slice_mm, thickness), 20.0)),
    )


def _half_input(settings: Settings) -> Settings | None:
    chosen = settings.features
    if not settings.uses_global:
        return None
    if chosen.input_side:
        if chosen.input_side // 2 < SMALLEST_SIDE:
            return None
        return replace(settings, features=replace(chosen, input_side=chosen.input_side // 2))
    if chosen.cell_mm * 2 > COARSEST_CELL_MM:
        return None
    return replace(settings, features=replace(chosen, cell_mm=chosen.cell_mm * 2))


class Budget:
    """The memory that a run may use, and how far its plan was stepped down.

    ``settings`` are those in force; ``predicted`` MiB for them; ``steps`` the sentences on what was
    given up, in order.
    """

    def __init__(self, settings: Settings, device: str, progress: Progress) -> None:
        self.settings = settings
        self.predicted = 0.0
        self.steps: list[str] = []
        self._progress = progress
        self._device = device
        self._rungs = ladder(settings)
        self._limit = settings.memory_limit_mb or _available_mb(device)

    def fit(self, sizes_for: Callable[[Settings], Sizes]) -> None:
        """Steps down until the prediction is within the limit. ``sizes_for`` gives the grids of
        some settings. Raises :class:`MemoryExceededError` when nothing is left to give up."""
        first = self.predicted = self._need(sizes_for)
        while self.predicted > self._limit:
            reason = f"The run would need about {self.predicted:.0f} MB of {self._limit:.0f} MB"
            if not self._step(reason):
                raise MemoryExceededError(
                    f"The run needs about {self.predicted:.0f} MB even on the coarsest grid "
                    f"({first:.0f} MB as set), and {self._limit:.0f} MB may be used; raise the "
                    "limit, close other programs, or crop the images."
                )
            self.predicted = self._need(sizes_for)

    def run(self, work: Callable[[Settings], _T]) -> _T:
        """``work(settings)``, again with less each time that it runs out of memory."""
        while True:
            try:
                return work(self.settings)
            except (MemoryError, RuntimeError, MemoryExceededError) as error:
                if not machine.is_out_of_memory(error):
                    raise
            # Outside of the handler: the traceback would keep everything that the run had made.
            machine.release_memory(self._device)
            if not self._step("The memory ran out"):
                raise MemoryExceededError(machine.OUT_OF_MEMORY)

    def _need(self, sizes_for: Callable[[Settings], Sizes]) -> float:
        return predicted_mb(self.settings, sizes_for(self.settings), self._device)

    def report(self) -> dict:
        """What ``result.json`` says of it."""
        return {
            "predicted_memory_mb": round(self.predicted, 1),
            "memory_limit_mb": round(self._limit, 1),
            "left_out_for_memory": list(self.steps),
        }

    def _step(self, reason: str) -> bool:
        """One rung down, said as a warning; False when there is none."""
        rung = next(self._rungs, None)
        if rung is None:
            return False
        self.settings, what = rung
        self.steps.append(what)
        self._progress.message(f"{reason}: {what}.", level="warning")
        return True


def _available_mb(device: str) -> float:
    """What this process holds and what is free, MiB."""
    held = 0.0 if device == "cuda" else machine.resident_memory_mb()
    return held + machine.free_memory_mb(device)
