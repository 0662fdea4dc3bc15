"""Branching tubes: airways and vessels that reach every part of an organ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .shapes import Capsules


@dataclass(frozen=True)
class Tree:
    """A grown tree: its tubes, and its branching points (N, 3) with their radii (N,), mm."""

    tubes: Capsules
    forks: np.ndarray
    fork_radii: np.ndarray


def grow_tree(
    root: Sequence[float],
    targets: np.ndarray,
    directness: float,
    thinnest: float,
    thickest: float,
) -> Tree:
    """A tree from ``root`` (3,) that reaches every target (N, 3), all in mm.

    Points are joined greedily, each where wire length + ``directness`` x path length to the root
    is smallest (Cuntz et al., PLoS Comput Biol 2010): 0 gives a minimal spanning tree, large values
    a star. Radii follow Murray's law (parent^3 = sum of children^3) from ``thinnest`` at the tips,
    limited to ``thickest``.
    """
    nodes = np.vstack([np.asarray(root, float)[None], targets])
    parent, path = _join(nodes, directness)
    cubes = np.zeros(len(nodes))
    children = np.zeros(len(nodes), int)
    for node in np.argsort(-path):  # tips first: a path to the root only gets shorter
        cubes[node] = max(cubes[node], thinnest**3)
        if parent[node] >= 0:
            cubes[parent[node]] += cubes[node]
            children[parent[node]] += 1
    radii = np.minimum(np.cbrt(cubes), thickest)
    ends = np.arange(1, len(nodes))
    tubes = Capsules(
        nodes[parent[ends]], nodes[ends], np.minimum(radii[ends] * 1.15, thickest), radii[ends]
    )
    forks = ends[children[ends] >= 2]
    return Tree(tubes, nodes[forks], radii[forks])


def _join(nodes: np.ndarray, directness: float) -> tuple[np.ndarray, np.ndarray]:
    """Parent of each node (-1 for node 0, the root) and path length to the root, mm."""
    count = len(nodes)
    parent, path = np.full(count, -1), np.zeros(count)
    distance = np.linalg.norm(nodes - nodes[0], axis=1)
    cost, best = distance * (1 + directness), np.zeros(count, int)
    cost[0] = np.inf
    for _ in range(count - 1):
        node = int(np.argmin(cost))
        parent[node] = best[node]
        distance = np.linalg.norm(nodes - nodes[node], axis=1)
        path[node] = path[parent[node]] + distance[parent[node]]
        through = distance + directness * (path[node] + distance)
        cheaper = (through < cost) & np.isfinite(cost)
        cost[cheaper], best[cheaper] = through[cheaper], node
        cost[node] = np.inf
    return parent, path


def scatter(
    rng: np.random.Generator,
    center: Sequence[float],
    radii: Sequence[float],
    inside: Callable[[np.ndarray], np.ndarray],
    count: int,
) -> np.ndarray:
    """At most ``count`` evenly scattered points (N, 3) of the box center +- radii where ``inside``.

    ``inside`` takes points (N, 3) and returns bool (N,). Points keep a distance from each other
    that makes about ``count`` of them fit.
    """
    box = np.asarray(radii, float)
    candidates = np.asarray(center, float) + rng.uniform(-1, 1, (24 * count, 3)) * box
    kept = inside(candidates.astype(np.float32))
    candidates = candidates[kept]
    if len(candidates) == 0:
        return candidates
    volume = 8 * np.prod(box) * kept.mean()
    # 0.69: a random packing that stops here leaves about ``count`` of the candidates.
    gap = 0.69 * np.cbrt(volume / count)
    neighbors = cKDTree(candidates).query_ball_point(candidates, gap)
    free, chosen = np.ones(len(candidates), bool), []
    for k, near in enumerate(neighbors):
        if free[k]:
            chosen.append(k)
            free[near] = False
    return candidates[chosen[:count]]
