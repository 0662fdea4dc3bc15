"""A picture of paired regions: both images side by side, a pair in one color."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import torch

from GlideRegLib.prepare import Prepared
from GlideRegLib.regions.find import label_map


def draw(path: Path, prepared: Prepared, masks: list[torch.Tensor]) -> None:
    """Three axial and two coronal planes of both working images (HU) with their regions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    images = [prepared.fixed.cpu().numpy(), prepared.moving.cpu().numpy()]
    maps = [label_map(part) for part in masks]
    colors = np.array(
        [(0.0, 0.0, 0.0, 0.0)]
        + [
            (*colorsys.hsv_to_rgb(k * 0.618 % 1, 0.7, 1.0), 0.5)
            for k in range(1, len(masks[0]) + 1)
        ]
    )
    depth, height, _ = images[0].shape
    planes = [(0, int(depth * share)) for share in (0.25, 0.5, 0.75)]
    planes += [(1, int(height * share)) for share in (0.4, 0.55)]
    figure, axes = plt.subplots(2, len(planes), figsize=(4 * len(planes), 8), facecolor="black")
    for row, (image, labels) in enumerate(zip(images, maps, strict=True)):
        for axis, (dim, number) in zip(axes[row], planes, strict=True):
            origin = "lower" if dim else "upper"  # feet down, front up
            axis.imshow(image.take(number, dim), "gray", vmin=-1000, vmax=400, origin=origin)
            axis.imshow(colors[labels.take(number, dim)], origin=origin)
            axis.set_title(("fixed", "moving")[row], color="white")
            axis.axis("off")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)
    plt.close(figure)
