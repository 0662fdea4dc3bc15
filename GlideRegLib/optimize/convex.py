"""Coupled convex discrete optimization: the initial displacement (Heinrich, Papiez, Schnabel and
Handels, "Non-parametric discrete registration with convex optimisation", WBIR 2014)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .cost_volume import cost_volume, displacement_mesh
from .warping import box_filter, symmetrize

#: Coupling weights of the successive passes (paper).
COEFFICIENTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

#: Weight of |d|^2 that decides between equal costs (outside the body): the smallest motion wins.
TIE_BREAK = 1e-4

#: Voxels whose candidates are compared at once: the processor's cache holds them.
_CHUNK = {"cpu": 2**9, "cuda": 2**16}


def coupled_convex(
    costs: torch.Tensor,
    radius: int,
    coefficients: Sequence[float] = COEFFICIENTS,
    pull: torch.Tensor | None = None,
) -> torch.Tensor:
    """Minimizes cost(d) + c |d - s|^2 point-wise, with s the smoothed previous solution.

    ``costs`` (K, Z, Y, X) as from :func:`cost_volume`; c grows through ``coefficients`` (units of
    cost per voxel^2). ``pull`` (Z, Y, X), in the same units, holds d back towards zero. Returns a
    displacement (3, Z, Y, X) in voxels.
    """
    shape = costs.shape[1:]
    mesh = displacement_mesh(radius, costs.device)
    flat = costs.reshape(costs.shape[0], -1)
    smooth = torch.zeros(3, flat.shape[1], device=costs.device)
    tie_break = torch.full_like(smooth[0], TIE_BREAK)
    if pull is not None:
        tie_break += pull.reshape(-1)
    for coefficient in (0.0, *coefficients):
        best = _coupled_minimum(flat, mesh, smooth, coefficient, tie_break)
        smooth = box_filter(best.reshape(3, *shape)).reshape(3, -1)
    return smooth.reshape(3, *shape)


def _coupled_minimum(
    costs: torch.Tensor,
    mesh: torch.Tensor,
    smooth: torch.Tensor,
    coefficient: float,
    tie_break: torch.Tensor,
) -> torch.Tensor:
    """The d (3, N) itself that :func:`coupled_argmin` finds; the mean of those that tie.

    |d|^2 - 2 d.s is one matrix product per chunk, and so is the look-up of the d where the least
    value stands: ``argmin`` takes ten times as long as ``amin``.
    """
    squared = mesh.square().sum(dim=0)
    factors = torch.cat((-2 * coefficient * mesh, squared[None])).T
    counted = torch.cat((mesh, torch.ones_like(squared)[None]))
    on_squared = tie_break + coefficient
    best = torch.empty_like(smooth)
    chunk = _CHUNK[costs.device.type]
    for start in range(0, costs.shape[1], chunk):
        part = slice(start, start + chunk)
        right = torch.cat((smooth[:, part], on_squared[None, part]))
        values = (factors @ right).add_(costs[:, part])
        sums = counted @ values.eq_(values.amin(dim=0))
        torch.div(sums[:3], sums[3], out=best[:, part])
    return best


def coupled_argmin(
    costs: torch.Tensor,
    mesh: torch.Tensor,
    smooth: torch.Tensor,
    coefficient: float,
    tie_break: torch.Tensor,
) -> torch.Tensor:
    """argmin over K of cost + c |d - s|^2: (N,) for ``costs`` (K, N), ``mesh`` (3, K), ``smooth``
    (3, N); ``tie_break`` (N,) is added to c for |d|^2 alone.

    |d|^2 - 2 d.s is one matrix product per chunk.
    """
    squared = mesh.square().sum(dim=0)
    factors = torch.cat((-2 * coefficient * mesh, squared[None])).T
    on_squared = tie_break + coefficient
    best = torch.empty(costs.shape[1], dtype=torch.long, device=costs.device)
    chunk = _CHUNK[costs.device.type]
    for start in range(0, costs.shape[1], chunk):
        part = slice(start, start + chunk)
        right = torch.cat((smooth[:, part], on_squared[None, part]))
        best[part] = torch.addmm(costs[:, part].float(), factors, right).argmin(dim=0)
    return best


def convex_displacement(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    radius: int,
    weight: torch.Tensor | None = None,
    coefficients: Sequence[float] = COEFFICIENTS,
    consistency_steps: int = 15,
    check: Callable[[], None] = lambda: None,
    pull: torch.Tensor | None = None,
) -> torch.Tensor:
    """Discrete displacement from fixed to moving features, made inverse consistent.

    Features (C, Z, Y, X) on one grid; the search reaches ``radius`` voxels along each axis. Only
    one direction's cost volume is held at a time. ``consistency_steps`` = 0 skips the backward
    direction. ``pull``: see :func:`coupled_convex`. Returns (3, Z, Y, X) in voxels.
    """
    forward = coupled_convex(
        cost_volume(fixed, moving, radius, weight, check=check), radius, coefficients, pull
    )
    if consistency_steps == 0:
        return forward
    check()
    backward = coupled_convex(
        cost_volume(moving, fixed, radius, weight, check=check), radius, coefficients, pull
    )
    return symmetrize(forward, backward, consistency_steps)[0]
