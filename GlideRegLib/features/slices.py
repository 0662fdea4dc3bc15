"""From a volume to slices, through the encoder, and back to a feature volume.

Both images of a pair lie on one working grid and are cut in the same way, so the cells of the two
feature volumes coincide. Feature volumes keep their own :class:`Grid` (cells in plane, slabs along
the axis), with the exact extent of the encoder's input: no half-cell offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..geometry import Grid
from ..prepare import MR_SCALE
from ..progress import Progress
from ..settings import FeatureSettings
from .cache import FeatureCache, content_key
from .encoders import Encoder

#: Slices per encoder call; one on a CPU, so that a run can be cancelled within two seconds.
BATCH = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class SlicePlan:
    """How working-grid volumes are cut: ``pixels`` is the grid of the slices that are encoded,
    ``cells`` that of the features, ``slab`` the number of working slices averaged into one."""

    pixels: Grid
    cells: Grid
    slab: int


def plan_slices(grid: Grid, encoder: Encoder, settings: FeatureSettings) -> SlicePlan:
    """Chooses pixel size and slab thickness for a working grid (isotropic, mm)."""
    spacing = grid.spacing[0]
    slab = 1
    while spacing * slab * 2 <= settings.slice_mm + 1e-6 and grid.size[2] % (slab * 2) == 0:
        slab *= 2
    extent = grid.extent[:2]
    stride = encoder.stride
    side = settings.input_side or encoder.fixed_side
    if side:  # a square input: the longer side fills it, nothing is distorted
        pixel = float(extent.max()) / side
        count = np.array([side, side])
    else:
        pixel = settings.cell_mm / stride
        multiple = max(encoder.side_multiple, stride)
        count = np.ceil(extent / pixel / multiple - 1e-6).astype(int) * multiple
    size = (int(count[0]), int(count[1]), grid.size[2] // slab)
    pixels = _centered(grid, size, (pixel, pixel, spacing * slab))
    cell_size = (size[0] // stride, size[1] // stride, size[2])
    cells = _centered(grid, cell_size, (pixel * stride, pixel * stride, spacing * slab))
    return SlicePlan(pixels, cells, slab)


def _centered(grid: Grid, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    """A grid with the same axes and the same center."""
    half = (np.asarray(size) - 1) / 2 * np.asarray(spacing)
    origin = grid.center - grid.direction_matrix @ half
    return Grid(size, spacing, tuple(float(o) for o in origin), grid.direction)


def encode_volume(
    image: torch.Tensor,
    body: torch.Tensor,
    grid: Grid,
    plan: SlicePlan,
    encoder: Encoder,
    settings: FeatureSettings,
    modality: str,
    cache: FeatureCache,
    progress: Progress,
    share: tuple[float, float] = (0.0, 1.0),
) -> torch.Tensor:
    """Encodes the slices that hold tissue: (256, slabs, h, w) float16 on the cells of ``plan``.

    ``image`` (Z, Y, X) in HU (CT) or scaled intensities (MR) on the working ``grid``; ``body``
    (Z, Y, X) bool. Slices without tissue stay zero. ``share`` is the part of the stage's progress
    that this volume takes. The result is cached on disk by content.
    """
    slices = _cut(image, grid, plan)
    slices = slices * _windows_scale(modality, settings)[0] + _windows_scale(modality, settings)[1]
    slices = slices.clamp_(0, 1)
    tissue = body.view(plan.pixels.size[2], -1).any(dim=1)
    key = content_key("v1", encoder.identity, slices.half(), tissue)
    cached = cache.get(key)
    if cached is not None:
        progress.update(share[1])
        return cached
    cells = plan.cells
    out = torch.zeros(encoder.channels, *cells.shape, dtype=torch.float16)
    wanted = torch.nonzero(tissue).flatten()
    device = image.device
    batch = BATCH.get(device.type, 1)
    for start in range(0, len(wanted), batch):
        progress.update(share[0] + (share[1] - share[0]) * start / len(wanted))
        chosen = wanted[start : start + batch]
        features = encoder.encode(slices[:, chosen].movedim(1, 0).contiguous())
        out[:, chosen] = features.movedim(0, 1).to("cpu", torch.float16)
    cache.put(key, out)
    return out


def _cut(image: torch.Tensor, grid: Grid, plan: SlicePlan) -> torch.Tensor:
    """Slab means on the pixel grid: (slabs, H, W). Rows run to posterior, columns to patient left:
    the radiological display that the encoders' training images resemble."""
    slabs = image.view(plan.pixels.size[2], plan.slab, *image.shape[1:]).mean(dim=1)
    coarse = _centered(
        grid,
        (grid.size[0], grid.size[1], plan.pixels.size[2]),
        (grid.spacing[0], grid.spacing[1], grid.spacing[2] * plan.slab),
    )
    return coarse.sample(slabs[None], coarse.index_of(plan.pixels, image.device))[0]


def _windows_scale(modality: str, settings: FeatureSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and offset (3, 1, 1, 1) that map intensities to the three color channels, 0 to 1."""
    windows = settings.ct_windows if modality == "ct" else ((0.0, MR_SCALE),) * 3
    low = torch.tensor([w[0] for w in windows]).view(3, 1, 1, 1)
    high = torch.tensor([w[1] for w in windows]).view(3, 1, 1, 1)
    return 1 / (high - low), -low / (high - low)


def foreground_cells(body: torch.Tensor, grid: Grid, plan: SlicePlan) -> torch.Tensor:
    """Share of tissue in each cell, 0 to 1: float32 on the cells of ``plan``."""
    slabs = body.float().view(plan.cells.size[2], plan.slab, *body.shape[1:]).mean(dim=1)
    # Average within cells, not only at their centers.
    factor = max(1, math.floor(plan.cells.spacing[0] / grid.spacing[0]))
    smooth = F.avg_pool2d(
        slabs[:, None],
        2 * (factor // 2) + 1,
        stride=1,
        padding=factor // 2,
        count_include_pad=False,
    )[:, 0]
    coarse = _centered(
        grid,
        (grid.size[0], grid.size[1], plan.cells.size[2]),
        (grid.spacing[0], grid.spacing[1], grid.spacing[2] * plan.slab),
    )
    index = coarse.index_of(plan.cells, body.device)
    return coarse.sample(smooth[None], index)[0].clamp_(0, 1)
