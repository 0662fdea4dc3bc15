"""The regions of two images of a pair: from slices to paired regions on the working grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..features.cache import FeatureCache
from ..features.decoders import Segmenter
from ..features.slices import SlicePlan, encode_volume, plan_slices
from ..geometry import Grid
from ..prepare import Prepared
from ..progress import Progress
from ..settings import FeatureSettings
from .linking import Region, describe, fill, link_slices
from .matching import pair_regions
from .proposals import ProposalRules, propose

#: Logits have this many pixels along a cell's side.
_FINER = 4
#: SAM's own side of the input; with fewer pixels its cells become as large as a vertebra.
_SIDE = 1024


@dataclass(frozen=True)
class PairingRules:
    """``overlap``: IoU of masks in neighboring slices that makes them one region;
    ``slices``: fewest slices of a region; ``similarity`` and ``reach_mm``: see
    ``matching.pair_regions``; ``centered``: the mean feature of both bodies is taken off the
    prototypes."""

    overlap: float
    slices: int
    similarity: float
    reach_mm: float
    centered: bool


@dataclass(frozen=True)
class FoundRegions:
    """Paired regions of the images on the working grid: row k of both belongs together."""

    fixed: list[Region]
    moving: list[Region]
    similarities: list[float]
    pixels: Grid
    counts: tuple[int, int]

    def masks(self, moving: bool, grid: Grid, check: Callable[[], None] = lambda: None) -> Tensor:
        """All regions of an image on a grid with the working grid's axes, bool (K, Z, Y, X), on
        the CPU. ``check`` is called between the regions and may raise to cancel."""
        index = self.pixels.index_of(grid)
        regions = self.moving if moving else self.fixed
        filled = torch.zeros((len(regions), *grid.shape), dtype=torch.bool)
        for k, region in enumerate(regions):
            check()
            filled[k] = fill(region, self.pixels, index)
        return filled


@dataclass(frozen=True)
class Detected:
    """Of the fixed and the moving image: features (256, slices, h, w) float16, bodies bool
    (slices, H, W), and the masks (N, H, W) of each slice, on the CPU."""

    features: tuple[Tensor, Tensor]
    bodies: tuple[Tensor, Tensor]
    slices: tuple[list[Tensor], list[Tensor]]


class RegionFinder:
    """Finds and pairs the regions of a prepared pair."""

    def __init__(
        self,
        segmenter: Segmenter,
        prepared: Prepared,
        features: FeatureSettings,
        slice_mm: float,
        progress: Progress,
    ) -> None:
        self._segmenter, self._prepared, self._progress = segmenter, prepared, progress
        encoder = segmenter.encoder
        side = features.input_side or encoder.fixed_side or _SIDE
        self._settings = replace(features, slice_mm=slice_mm, input_side=side)
        self._plan: SlicePlan = plan_slices(prepared.grid, encoder, self._settings)
        # Slices may lie farther apart than they are thick: thick ones are a blur.
        thick = round(features.slice_mm / prepared.grid.spacing[2])
        self._thick = min(max(1, thick), self._plan.slab)
        self._pixels = _finer(self._plan.cells, _FINER)
        self._quiet = Progress(should_cancel=progress.cancel_wanted)

    def detect(self, rules: ProposalRules, report: Callable[[float], None]) -> Detected:
        """The masks of all slices of both images; ``report`` is given the share that is done.

        Raises Cancelled.
        """
        prepared = self._prepared
        found: list[tuple[Tensor, Tensor, list[Tensor]]] = []
        for k, (image, mask) in enumerate(
            ((prepared.fixed, prepared.fixed_mask), (prepared.moving, prepared.moving_mask))
        ):
            report(0.5 * k)
            features = self._encode(image, mask)
            body = self._body(mask)
            slices = self._segment(features, body, rules, lambda s, k=k: report(0.5 * (k + s)))
            found.append((features, body, slices))
        first, second = found
        return Detected(*zip(first, second, strict=True))

    def pair(self, detected: Detected, rules: PairingRules) -> FoundRegions:
        """Links the masks to regions and pairs these."""
        found = [link_slices(slices, rules.overlap, rules.slices) for slices in detected.slices]
        mean = self._mean(detected.features, detected.bodies) * float(rules.centered)
        for regions, features in zip(found, detected.features, strict=True):
            describe(regions, features, mean, self._pixels)
        pairs = pair_regions(*found, rules.similarity, rules.reach_mm)
        return FoundRegions(
            [found[0][i] for i, _, _ in pairs],
            [found[1][j] for _, j, _ in pairs],
            [similarity for _, _, similarity in pairs],
            self._pixels,
            (len(found[0]), len(found[1])),
        )

    def _encode(self, image: Tensor, mask: Tensor) -> Tensor:
        """(256, slices, h, w) float16 on the CPU."""
        prepared, cache = self._prepared, FeatureCache(enabled=self._settings.cache)
        slabs = image.view(-1, self._plan.slab, *image.shape[1:])
        first = (self._plan.slab - self._thick) // 2
        middle = slabs[:, first : first + self._thick].mean(dim=1, keepdim=True)
        image = middle.expand_as(slabs).reshape(image.shape)
        rest = (self._segmenter.encoder, self._settings, prepared.modality, cache, self._quiet)
        return encode_volume(image, mask, prepared.grid, self._plan, *rest)

    def _body(self, mask: Tensor) -> Tensor:
        """The body on the pixels of the masks, bool (slices, H, W)."""
        index = self._prepared.grid.index_of(self._pixels, mask.device)
        return self._prepared.grid.sample(mask[None].float(), index)[0] > 0.5

    @torch.inference_mode()
    def _segment(
        self,
        features: Tensor,
        body: Tensor,
        rules: ProposalRules,
        report: Callable[[float], None],
    ) -> list[Tensor]:
        """The masks (N, H, W) of every slice, on the CPU."""
        slices = []
        for z in range(features.shape[1]):
            report(z / features.shape[1])
            if not body[z].any():
                slices.append(torch.zeros((0, *body.shape[1:]), dtype=torch.bool))
                continue
            embedding = features[:, z].to(body.device, torch.float32)
            pixel = self._pixels.spacing[0]
            masks = propose(self._segmenter, embedding, body[z], pixel, rules, self._progress.check)
            slices.append(masks.cpu())
        return slices

    def _mean(self, features: tuple[Tensor, Tensor], bodies: tuple[Tensor, Tensor]) -> Tensor:
        """The mean feature (C,) in both bodies."""
        total, count = torch.zeros(features[0].shape[0]), 0
        for volume, body in zip(features, bodies, strict=True):
            inside = body[:, _FINER // 2 :: _FINER, _FINER // 2 :: _FINER].cpu()
            total += volume[:, inside].float().sum(dim=1)
            count += int(inside.sum())
        return total / max(1, count)


def label_map(masks: Tensor) -> np.ndarray:
    """Masks (K, Z, Y, X) as one label map, int16, numbered from 1; small regions lie on top."""
    sizes = masks.flatten(1).sum(dim=1)
    labels = torch.zeros(masks.shape[1:], dtype=torch.int16)
    for k in sizes.argsort(descending=True).tolist():
        labels[masks[k]] = k + 1
    return labels.numpy()


def _finer(cells: Grid, factor: int) -> Grid:
    """The grid with ``factor`` times as many voxels in plane, over the same extent."""
    first = cells.to_physical(np.array([[0.5 / factor - 0.5, 0.5 / factor - 0.5, 0.0]]))[0]
    size = (cells.size[0] * factor, cells.size[1] * factor, cells.size[2])
    spacing = (cells.spacing[0] / factor, cells.spacing[1] / factor, cells.spacing[2])
    return Grid(size, spacing, tuple(float(v) for v in first), cells.direction)
