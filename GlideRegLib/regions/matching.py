"""Pairs of regions: the most similar prototypes, one to one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from .linking import Region


def pair_regions(
    fixed: list[Region], moving: list[Region], threshold: float, reach_mm: float
) -> list[tuple[int, int, float]]:
    """(number in ``fixed``, number in ``moving``, similarity) of all pairs, most similar first.

    Similarity is the cosine of the prototypes. A pair gains what its similarity exceeds
    ``threshold`` by; of all ways to pair one to one that with the largest gain is taken. Centers
    farther apart than ``reach_mm`` are no pair (0: any distance).
    """
    if not fixed or not moving:
        return []
    first, second = (
        F.normalize(torch.stack([region.prototype for region in regions]), dim=1)
        for regions in (fixed, moving)
    )
    similarity = (first @ second.T).double().cpu().numpy()
    allowed = similarity > threshold
    if reach_mm > 0:
        centers = [np.stack([region.center for region in regions]) for regions in (fixed, moving)]
        distance = np.linalg.norm(centers[0][:, None] - centers[1][None], axis=2)
        allowed &= distance <= reach_mm
    # What is no pair gains nothing, so it never displaces one.
    gain = np.where(allowed, similarity - threshold, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    pairs = [
        (int(i), int(j), float(similarity[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if allowed[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])
