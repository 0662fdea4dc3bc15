"""DINO-Reg: DINOv2 features of slices, reduced by PCA, in ConvexAdam.

Song, Xu and Yan, "DINO-Reg: General Purpose Image Encoder for Training-Free Multi-modal Deformable
Medical Image Registration", MICCAI 2024. Every third slice goes through ViT-L/14 at 1120 pixels
(80 x 80 patches); PCA of both images' features together to 24 channels; ConvexAdam on these.

The weights are the user's own file (``dinov2_vitl14_pretrain.pth``, or the smaller ``vits14`` and
``vitb14``); there are none that could be tested here. ``encoder`` "settings" takes the encoder of
the settings (SAM 2, MobileSAM) in DINOv2's place: another method, named ``dinoreg-sam``. Slices
and cells are those of the settings; the paper's are ``input_side`` 1120 and ``slice_mm`` of three
slices. The PCA scores are whitened, which the paper's are not: raw scores let one channel outweigh
the rest. ConvexAdam is taken without the faults of its package (``published`` False), with cells of
4 working voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from ..field import DisplacementField
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from . import convexadam
from .base import find_weights
from .catalog import DINOV2_FILES
from .encoding import PairEncoder
from .frame import Problem, Solution, run


@dataclass(frozen=True)
class Options(convexadam.Options):
    """``weights``: the file of DINOv2. ``channels`` kept by PCA; ``encoder``: "dinov2" or
    "settings". The rest is ConvexAdam's; its borders and scale are put right here. ``scale`` weighs
    the features: at 0.25 24 whitened channels weigh as much as the 12 of MIND."""

    weights: str | None = None
    channels: int = 24
    encoder: str = "dinov2"
    scale: float = 0.25
    grid_spacing: int = 4
    published: bool = False

    def problems(self) -> list[str]:
        found = super().problems()
        if self.encoder not in ("dinov2", "settings"):
            found.append(f"encoder must be dinov2 or settings, not '{self.encoder}'")
        return found + out_of_range(self, {"channels": (1, 64), "scale": (1e-3, 1e3)})


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    landmark_constraints: None = None,
) -> Result:
    """See :meth:`Method.register`."""
    from . import find

    options = find(settings.method).options(settings.method_options)
    # Multiples of 16, so that slices can be averaged to slabs.
    multiple = math.lcm(16, options.grid_spacing, options.adam_spacing)
    masks = (fixed_mask, moving_mask)
    return run(_solve, (fixed, moving), settings, progress, masks, multiple)


@torch.no_grad()
def _solve(problem: Problem) -> Solution:
    options = problem.options
    encoder = None
    if options.encoder == "dinov2":
        from ..features.encoders.dinov2 import load_dinov2

        encoder = load_dinov2(Path(options.weights or find_weights(DINOV2_FILES)), problem.device)
    pair = PairEncoder(problem, options.channels, encoder)
    poolings = (options.grid_spacing, options.adam_spacing)
    scaled = [tuple(options.scale * f for f in pair.pair(pooling)) for pooling in poolings]
    features = convexadam.Features(*scaled)
    kept = {f.name: getattr(options, f.name) for f in fields(convexadam.Options)}
    plain = convexadam.Options(**kept)
    found, pooling = convexadam.convex_adam(features, plain, problem.trust, problem.progress)
    field = DisplacementField.from_voxels(found, problem.prepared.grid.pooled(pooling))
    return Solution(field, pair.encoder)
