"""Everything mode: the regions of a slice that a mask decoder finds without being told where.

Decoders trained on points get a grid of points, as in Kirillov et al., "Segment Anything", ICCV
2023. Those trained on boxes (LiteMedSAM) answer points with nothing. They get a grid of boxes of
several sizes, and then, ``rounds`` times, the box of the mask that they gave: a box that fits its
mask stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..features.decoders import Segmenter
from ..features.decoders.sam import SamDecoder

#: Prompts at once; few on a CPU, so that a run can be cancelled within two seconds.
_BATCH = {"cpu": 8, "cuda": 64}
#: Logits by which a mask's threshold is moved to see how stable it is, as in Segment Anything.
_SHIFT = 1.0
#: Share of a mask that must lie in the body.
_INSIDE = 0.8
#: Boxes that agree by more than this (IoU) are the same one.
_SAME = 0.8
#: A box is fitted to its mask when that has this share of the quality that is asked for.
_HOPEFUL = 0.8


@dataclass(frozen=True)
class ProposalRules:
    """Which masks are kept. ``predicted_iou`` (the network's own estimate) and ``stability`` (IoU
    of the masks at two thresholds) at least; ``area_mm2`` smallest and largest; ``overlap``: the
    largest share of the smaller of two masks that the other may cover. ``points_per_side``,
    ``box_mm`` (sides) and ``rounds`` shape the prompts."""

    predicted_iou: float
    stability: float
    area_mm2: tuple[float, float]
    overlap: float
    points_per_side: int
    box_mm: tuple[float, ...]
    rounds: int


def propose(
    segmenter: Segmenter,
    embedding: Tensor,
    body: Tensor,
    pixel_mm: float,
    rules: ProposalRules,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """The masks of one slice, best first: bool (N, H, W) on the device of ``embedding``.

    ``embedding`` is (256, H / 4, W / 4), ``body`` bool (H, W) on square pixels of ``pixel_mm``.
    ``check`` is called between batches and may raise to cancel.
    """
    shares = _Pixels(*body.shape)
    if segmenter.prompts == "points":
        prompts, chosen, rounds = shares.points(rules, body), SamDecoder.SEVERAL, 0
    else:
        prompts, chosen = shares.boxes(rules, body, pixel_mm), SamDecoder.SINGLE
        rounds = rules.rounds
    found = _Kept(rules, body, pixel_mm)
    for number in range(rounds + 1):
        boxes = []
        for batch in prompts.split(_BATCH.get(embedding.device.type, 8)):
            check()
            logits, quality = segmenter.decoder(embedding, batch, chosen)
            logits, quality = logits.flatten(0, 1), quality.flatten()
            found.add(logits, quality)
            hopeful = quality >= _HOPEFUL * rules.predicted_iou
            boxes.append(_boxes_of(logits[hopeful] > 0))
        if number < rounds and boxes:
            prompts = _distinct(shares.relative(torch.cat(boxes), margin=1))
    return found.best()


class _Pixels:
    """Prompts on a slice of ``height`` x ``width`` pixels, as shares of the image."""

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width

    def points(self, rules: ProposalRules, body: Tensor) -> Tensor:
        """A regular grid of points inside the body: (P, 2)."""
        step = max(self._height, self._width) / rules.points_per_side
        return self.relative(self._centers(step, body), margin=0)

    def boxes(self, rules: ProposalRules, body: Tensor, pixel_mm: float) -> Tensor:
        """Square boxes of each size, two thirds of a side apart (the smallest: a whole side), with
        their centers inside the body: (P, 4)."""
        found = []
        for side in sorted(size / pixel_mm for size in rules.box_mm):
            centers = self._centers(side * (2 / 3 if found else 1), body)
            found.append(torch.cat([centers - side / 2, centers + side / 2], dim=1))
        return self.relative(torch.cat(found), margin=0)

    def relative(self, pixels: Tensor, margin: float) -> Tensor:
        """Points (P, 2) or boxes (P, 4) in pixels, counted from the image's corner, as shares of
        the image; boxes grow by ``margin`` pixels and end at the image's border."""
        size = pixels.new_tensor([self._width, self._height] * (pixels.shape[1] // 2))
        grown = pixels.new_tensor([-margin, -margin, margin, margin])
        return ((pixels + grown[-pixels.shape[1] :]) / size).clamp(0, 1)

    def _centers(self, step: float, body: Tensor) -> Tensor:
        """Centers of cells of ``step`` pixels that lie in the body: (P, 2), x and y."""
        rows, columns = (
            (torch.arange(max(1, round(n / step)), device=body.device) + 0.5)
            * (n / max(1, round(n / step)))
            for n in (self._height, self._width)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        inside = body[y.long(), x.long()]
        return torch.stack([x[inside], y[inside]], dim=1)


class _Kept:
    """Masks that fulfill the rules, with their scores."""

    def __init__(self, rules: ProposalRules, body: Tensor, pixel_mm: float) -> None:
        self._rules, self._body, self._pixel = rules, body, pixel_mm**2
        self._masks: list[Tensor] = []
        self._scores: list[Tensor] = []

    def add(self, logits: Tensor, quality: Tensor) -> None:
        """Takes what is good enough of (N, H, W) logits with their expected IoU (N,)."""
        rules, masks = self._rules, logits > 0
        wide, narrow = ((logits > level).sum(dim=(1, 2)) for level in (-_SHIFT, _SHIFT))
        stability = narrow / wide.clamp(min=1)
        count = masks.sum(dim=(1, 2))
        area, inside = count * self._pixel, (masks & self._body).sum(dim=(1, 2)) / count
        good = (quality >= rules.predicted_iou) & (stability >= rules.stability)
        good &= (area >= rules.area_mm2[0]) & (area <= rules.area_mm2[1]) & (inside >= _INSIDE)
        self._masks.append(masks[good] & self._body)
        self._scores.append((quality * stability)[good])

    def best(self) -> Tensor:
        """By score, without those that overlap a better one too much: bool (N, H, W)."""
        if not self._masks:
            return self._body.new_zeros((0, *self._body.shape))
        order = torch.cat(self._scores).argsort(descending=True)
        masks = torch.cat(self._masks)[order]
        flat = masks.flatten(1).float()
        both, size = flat @ flat.T, flat.sum(dim=1)
        share = both / torch.minimum(size[:, None], size[None]).clamp(min=1)
        kept: list[int] = []
        for number in range(len(masks)):
            if not kept or share[number, kept].max() <= self._rules.overlap:
                kept.append(number)
        return masks[kept]


def _boxes_of(masks: Tensor) -> Tensor:
    """The boxes (N, 4) of masks (N, H, W), x0, y0, x1, y1 in pixels; empty masks are left out."""
    masks = masks[masks.any(dim=2).any(dim=1)]
    sides = []
    for dim in (1, 2):  # columns, then rows that hold anything
        filled = masks.any(dim=dim).int()
        last = filled.shape[1] - filled.flip(1).argmax(dim=1)
        sides.append((filled.argmax(dim=1), last))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1).float()


def _distinct(boxes: Tensor) -> Tensor:
    """The boxes (N, 4) without those that are nearly the same as an earlier one."""
    lower = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    upper = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (upper - lower).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    same = both / (area[:, None] + area[None] - both).clamp(min=1e-9) > _SAME
    kept: list[int] = []
    for number in range(len(boxes)):
        if not kept or not same[number, kept].any():
            kept.append(number)
    return boxes[kept]
