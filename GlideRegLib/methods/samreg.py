"""SAMReg: regions that a segmenter finds in both images, paired by what its encoder sees in them.

Huang et al., "One registration is worth two segmentations", MICCAI 2024,
https://github.com/sqhuang0103/SAMReg. Masks in *everything* mode, prototypes (mean feature in
a mask), cosine similarity above a threshold, one to one; then, optionally, a dense field from the
pairs: squared difference plus Dice of the masks, and the field's gradient.

What is not the paper's. Its SAM is ViT-H; here MobileSAM or LiteMedSAM, see ``features/decoders``.
LiteMedSAM was trained on boxes and answers points with nothing: it gets boxes, see
``regions/proposals``. One-to-one pairs are the best assignment instead of the greedy one. Raw
cosines of all regions lie close together, so the mean feature is taken off (``centered``), and
after the start that all methods share a region is looked for within ``reach_mm`` only; False and 0
give the paper's way. Regions are linked from slice to slice, since the images are volumes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from ..errors import MethodError
from ..features.decoders import Segmenter, load_segmenter
from ..field import DisplacementField, affine_to_sitk
from ..optimize.warping import pool
from ..progress import Progress
from ..regions.dense import field_from_regions
from ..regions.find import FoundRegions, PairingRules, RegionFinder, label_map
from ..regions.pairs import RegionPairs
from ..regions.proposals import ProposalRules
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .frame import Problem, Solution, run

#: (expected IoU, stability) at least, by the prompts that the decoder was trained on: the paper's
#: for points; LiteMedSAM is less sure of itself, and its good masks on CT lie above these.
_QUALITY = {"points": (0.9, 0.9), "boxes": (0.6, 0.55)}
#: Sizes of the working grid are multiples of this: for the field, and for slices of 16 voxels.
_MULTIPLE = 16
#: Share of the method's time that finding the regions takes.
_FINDING = 0.85


@dataclass(frozen=True)
class Options:
    """``slice_mm``: at most so far apart are the slices that are segmented (how thick they are,
    the settings of the features say).
    ``points_per_side``, or ``box_mm`` (sides of the boxes) and ``rounds`` (how often a box is
    fitted to its mask): the prompts. ``predicted_iou`` and ``stability``: the least of a mask, None
    for what suits the decoder; ``area_mm2`` smallest and largest; ``overlap`` of two masks at most
    (of the smaller one). ``link_overlap``: IoU of masks in neighboring slices; ``slices``: fewest
    slices of a region. ``similarity``, ``centered``, ``reach_mm`` (0: any): the pairs. ``dense``:
    a field from the pairs, else the start alone; with ``poolings`` of the working grid,
    ``iterations`` each, ``learning_rate`` in voxels and ``smoothness``."""

    slice_mm: float = 8.0
    points_per_side: int = 32
    box_mm: tuple[float, ...] = (45.0, 90.0, 160.0)
    rounds: int = 1
    predicted_iou: float | None = None
    stability: float | None = None
    area_mm2: tuple[float, float] = (150.0, 25_000.0)
    overlap: float = 0.8
    link_overlap: float = 0.4
    slices: int = 2
    similarity: float = 0.6
    centered: bool = True
    reach_mm: float = 60.0
    dense: bool = True
    poolings: tuple[int, ...] = (8, 4)
    iterations: int = 50
    learning_rate: float = 0.05
    smoothness: float = 30.0

    def problems(self) -> list[str]:
        limits = {
            "slice_mm": (0.5, 40),
            "points_per_side": (2, 128),
            "rounds": (0, 10),
            "overlap": (0, 1),
            "link_overlap": (0.01, 1),
            "slices": (1, 100),
            "similarity": (-1, 1),
            "reach_mm": (0, 1000),
            "iterations": (1, 10_000),
            "learning_rate": (1e-4, 10),
            "smoothness": (0, 1e6),
        }
        limits.update({n: (0, 1) for n in ("predicted_iou", "stability") if getattr(self, n)})
        found = out_of_range(self, limits)
        if not self.box_mm or any(not 5 <= side <= 500 for side in self.box_mm):
            found.append("box_mm needs sides of 5 to 500 mm")
        if not 0 <= self.area_mm2[0] < self.area_mm2[1]:
            found.append("area_mm2 needs a smallest and a largest area")
        finer = pairwise(self.poolings)
        known = all(pooling in (1, 2, 4, 8, 16) for pooling in self.poolings)
        if not self.poolings or not known or any(b > a for a, b in finer):
            found.append("poolings are 16, 8, 4, 2 or 1, from coarse to fine")
        return found

    def pairing_rules(self) -> PairingRules:
        pair = (self.similarity, self.reach_mm, self.centered)
        return PairingRules(self.link_overlap, self.slices, *pair)

    def proposal_rules(self, prompts: str) -> ProposalRules:
        """With the thresholds that suit a decoder trained on ``prompts``."""
        given, suited = (self.predicted_iou, self.stability), _QUALITY[prompts]
        quality = (s if g is None else g for g, s in zip(given, suited, strict=True))
        shape = (self.points_per_side, self.box_mm, self.rounds)
        return ProposalRules(*quality, self.area_mm2, self.overlap, *shape)


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    landmark_constraints: None = None,
) -> Result:
    """See :meth:`Method.register`. The result's ``regions`` are the pairs."""
    found: list[RegionPairs] = []

    def solve(problem: Problem) -> Solution:
        solution, pairs = _solve(problem, fixed, moving)
        found.append(pairs)
        return solution

    masks = (fixed_mask, moving_mask)
    result = run(solve, (fixed, moving), settings, progress, masks, _MULTIPLE)
    return replace(result, regions=found[0])


@torch.no_grad()
def _solve(problem: Problem, fixed: Volume, moving: Volume) -> tuple[Solution, RegionPairs]:
    options, prepared = problem.options, problem.prepared
    segmenter = _segmenter(problem)
    finder = RegionFinder(
        segmenter, prepared, problem.settings.features, options.slice_mm, problem.progress
    )
    rules = options.proposal_rules(segmenter.prompts)
    detected = finder.detect(rules, lambda s: problem.progress.update(_FINDING * s))
    found = finder.pair(detected, options.pairing_rules())
    if not found.similarities:
        raise MethodError(
            f"SAMReg found {found.counts[0]} regions in the fixed and {found.counts[1]} in the "
            "moving image, and no pair among them; lower its option similarity or predicted_iou."
        )
    check = problem.progress.check
    masks = [found.masks(which, prepared.grid, check) for which in (False, True)]
    pairs = _on_images(problem, found, masks, fixed, moving)
    field = _field(problem, masks) if options.dense else _no_field(problem)
    counts = dict(zip(("fixed", "moving"), found.counts, strict=True))
    facts = {"regions": {"found": counts, "pairs": pairs.facts()}}
    return Solution(field, segmenter.encoder, facts=facts), pairs


def _segmenter(problem: Problem) -> Segmenter:
    features = problem.settings.features
    return load_segmenter(
        features.encoder,
        weights=features.weights,
        device=problem.device,
        random_weights=features.random_weights,
        seed=problem.settings.seed,
        progress=problem.progress,
        allow_unverified=features.allow_unverified,
    )


def _on_images(
    problem: Problem,
    found: FoundRegions,
    masks: list[torch.Tensor],
    fixed: Volume,
    moving: Volume,
) -> RegionPairs:
    """The pairs on the images' own grids."""
    grid, start = problem.prepared.grid, problem.prepared.initial
    back = affine_to_sitk(np.linalg.inv(start))
    first, second = (Volume(label_map(part), grid) for part in masks)
    return RegionPairs.measured(
        first.resampled(fixed.grid, labels=True),
        second.resampled(moving.grid, back, labels=True),
        found.similarities,
    )


def _field(problem: Problem, masks: list[torch.Tensor]) -> DisplacementField:
    options = problem.options
    last = options.poolings[-1]
    soft = [
        torch.cat([pool(mask[None].float(), last) for mask in part]).to(problem.device)
        for part in masks
    ]
    found = field_from_regions(
        *soft,
        options.poolings,
        options.iterations,
        options.learning_rate,
        options.smoothness,
        problem.progress,
        _FINDING,
    )
    return DisplacementField.from_voxels(found, problem.prepared.grid.pooled(last))


def _no_field(problem: Problem) -> DisplacementField:
    return DisplacementField.zeros(problem.prepared.grid.pooled(problem.options.poolings[-1]))
