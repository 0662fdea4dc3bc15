"""Adam on the nodes of a field that a filter smooths: how several published methods refine."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..progress import Progress


def descend(
    start: torch.Tensor,
    loss: Callable[[torch.Tensor], torch.Tensor],
    smooth: Callable[[torch.Tensor], torch.Tensor],
    iterations: int,
    learning_rate: float,
    progress: Progress,
    begin: float = 0.3,
) -> torch.Tensor:
    """Minimizes ``loss`` of the field ``smooth(nodes)``; nodes and field are (3, Z, Y, X), voxels.

    The gradient goes back through ``smooth`` by applying it again: it must be its own adjoint, as
    box filters are. Like the published codes it returns the last field that was evaluated, not the
    one after the last step. ``begin``: the share of the stage's progress that is done before.
    """
    nodes = start.detach().clone()
    optimizer = torch.optim.Adam([nodes], lr=learning_rate)
    displacement = smooth(nodes)
    for iteration in range(iterations):
        progress.update(begin + (1 - begin) * iteration / iterations)
        displacement = smooth(nodes)
        with torch.enable_grad():
            leaf = displacement.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        nodes.grad = smooth(gradient)
        optimizer.step()
    return displacement


def diffusion(displacement: torch.Tensor, weight: float) -> torch.Tensor:
    """``weight`` times the squared forward differences: mean over voxels and components, summed
    over the three axes."""
    total = displacement.new_zeros(())
    for dim in (1, 2, 3):
        total = total + weight * displacement.diff(dim=dim).square().mean()
    return total
