"""Is the deformation plausible? Jacobian, folds, energies, displacements of structures.

Everything is measured on the transform as it is, sampled at every voxel of the fixed image, whoever
made it. Determinants come from central differences (one-sided at the faces), as in Learn2Reg; folds
are looked for more closely, see :mod:`GlideRegLib.folding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..geometry import Grid
from .records import Measure
from .subject import Subject, as_place

if TYPE_CHECKING:
    import SimpleITK
    import torch

#: Slices that are sampled at once.
_SLAB = 24
#: Why folds were not counted: no voxel may pass for unfolded that could not be measured.
NOT_FINITE = "the transform is not finite everywhere in it"


@dataclass
class Survey:
    """The transform over the fixed image.

    ``jacobian`` (Z, Y, X) float32: central differences; where the transform folds, the lowest
    determinant of one-sided differences, which is 0 or less, at the voxel or at a node of the
    displacement field within it. ``central``: central differences there, too; the same array when
    nothing folds. ``bending`` (1/mm²) and ``harmonic`` are means over the body of the squared
    second and first derivatives of the displacement, the outermost layer left out.
    ``mean_mm`` and ``max_mm``: length of the displacement in the body. ``of_label``: mean
    displacement (3,) LPS mm of every label of the fixed maps.
    """

    jacobian: np.ndarray
    central: np.ndarray
    bending: float = 0.0
    harmonic: float = 0.0
    mean_mm: float = 0.0
    max_mm: float = 0.0
    of_label: dict[int, np.ndarray] = field(default_factory=dict)


def survey(subject: Subject, update: Callable[[float], None] = lambda share: None) -> Survey:
    """Samples the transform slab by slab, so that full-size CT fits into memory.

    ``update`` is called with the share that is done, and may raise to cancel.
    """
    import torch

    from ..field import jacobian_determinant

    grid, body = subject.fixed.grid, subject.body
    label_maps = [layer.fixed_labels for layer in subject.layers if layer.labels is not None]
    jacobian = np.empty(grid.shape, np.float32)
    found, folds = Survey(jacobian, jacobian), []
    sums = np.zeros(4)  # bending, harmonic, their voxels, displacement in the body
    label_sums = [np.zeros((4, int(labels.max()) + 1)) for labels in label_maps]
    for inner, halo, part, vectors in _slabs(subject.transform, grid):
        jacobian[inner] = jacobian_determinant(vectors, part)[halo].numpy()
        folds.append(_folds_of(vectors, part, inner, halo))
        length = torch.linalg.vector_norm(vectors[:, halo], dim=0).numpy()[body[inner]]
        sums[3] += length.sum()
        # NaN stays NaN, which the maximum of Python would drop.
        found.max_mm = float(np.maximum(found.max_mm, length.max(initial=0)))
        counted = torch.from_numpy(_without_faces(body, inner))
        for k, energy in enumerate((_bending(vectors, part), _harmonic(vectors, part))):
            sums[k] += float(energy[halo][counted].sum(dtype=torch.float64))
        sums[2] += int(counted.sum())
        for labels, total in zip(label_maps, label_sums, strict=True):
            total += _label_sums(vectors[:, halo].numpy(), labels[inner], total.shape[1])
        update(inner.stop / grid.size[2])
    _mark_folds(found, [*folds, *_folds_at_nodes(subject)])
    found.bending, found.harmonic = (float(v) for v in sums[:2] / max(sums[2], 1))
    found.mean_mm = float(sums[3] / max(int(body.sum()), 1))
    for total in label_sums:
        present = np.flatnonzero(total[3])
        found.of_label.update({int(k): total[:3, k] / total[3, k] for k in present if k})
    return found


def _slabs(
    transform: SimpleITK.Transform, grid: Grid
) -> Iterator[tuple[slice, slice, Grid, torch.Tensor]]:
    """Slices of the grid, where they lie within the sampled part, that part, its displacement."""
    from ..field import sample_transform

    depth = grid.size[2]
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        low, high = max(start - 1, 0), min(stop + 1, depth)
        part = grid.padded((0, 0, -low), (0, 0, high - depth))
        vectors = sample_transform(transform, part).vectors
        yield slice(start, stop), slice(start - low, stop - low), part, vectors


def _folds_of(
    vectors: torch.Tensor, part: Grid, inner: slice, halo: slice
) -> tuple[np.ndarray, np.ndarray]:
    """The folded voxels of a slab: flat indices in the whole image, and the lowest determinants."""
    from ..folding import folded_voxels

    flat, lowest = folded_voxels(vectors, part)
    layer = part.size[0] * part.size[1]
    own = (flat >= halo.start * layer) & (flat < halo.stop * layer)
    return flat[own] + (inner.start - halo.start) * layer, lowest[own]


def _folds_at_nodes(subject: Subject) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same at the own nodes of a displacement field: they may lie between the voxels."""
    from ..folding import folded_nodes, own_nodes

    nodes = own_nodes(subject.transform)
    return [] if nodes is None else [folded_nodes(nodes, subject.fixed.grid)]


def _mark_folds(found: Survey, folds: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Puts the lowest determinants of folded voxels into the map; its central ones are kept."""
    flat, lowest = (np.concatenate(parts) for parts in zip(*folds, strict=True))
    if flat.size:
        found.central = found.jacobian.copy()
        np.minimum.at(found.jacobian.reshape(-1), flat, lowest)


def _without_faces(body: np.ndarray, inner: slice) -> np.ndarray:
    """The body in some slices, without the outermost layer of the image."""
    mask = body[inner].copy()
    if inner.start == 0:
        mask[0] = False
    if inner.stop == len(body):
        mask[-1] = False
    for axis in (1, 2):
        edges = np.moveaxis(mask, axis, 0)
        edges[0] = edges[-1] = False
    return mask


def _harmonic(vectors: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Sum of the nine squared first derivatives, at every voxel: no unit."""
    from ..inversion import difference

    parts = [difference(vectors, k) / grid.spacing[k] for k in range(3)]
    return sum(part.square().sum(0) for part in parts)


def _bending(vectors: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Sum of the squared second derivatives (mixed ones twice), at every voxel: 1/mm²."""
    from ..inversion import difference

    total = vectors.new_zeros(vectors.shape[1:])
    for a in range(3):
        first = difference(vectors, a)
        dim = 3 - a
        n = vectors.shape[dim]
        if n > 2:
            around = [vectors.narrow(dim, k, n - 2) for k in range(3)]
            second = (around[0] - 2 * around[1] + around[2]) / grid.spacing[a] ** 2
            total.narrow(dim - 1, 1, n - 2).add_(second.square().sum(0))
        for b in range(a + 1, 3):
            mixed = difference(first, b) / (grid.spacing[a] * grid.spacing[b])
            total.add_(mixed.square().sum(0), alpha=2)
    return total


def _label_sums(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Sums of x, y, z displacements and numbers of voxels per label: (4, count)."""
    flat = labels.ravel()
    sums = [np.bincount(flat, component.ravel(), count) for component in vectors]
    return np.stack([*sums, np.bincount(flat, minlength=count)])


# --- measures ---------------------------------------------------------------------------------


def regularity_measures(subject: Subject, found: Survey) -> list[Measure]:
    """Jacobian, folds, energies and displacements in the body and the whole grid."""
    jacobian, body = found.jacobian, subject.body
    inside = jacobian[body]
    lowest = subject.fixed.grid.to_physical(_index_of_minimum(np.where(body, jacobian, np.inf)))
    percentiles = np.percentile(inside, (1, 50, 99))
    values = {
        "jacobian_p1": percentiles[0],
        "jacobian_p50": percentiles[1],
        "jacobian_p99": percentiles[2],
        "jacobian_max": inside.max(),
        "sd_log_jacobian": np.log(np.clip(inside, 1e-6, None)).std(dtype=np.float64),
        "bending_energy": found.bending,
        "harmonic_energy": found.harmonic,
        "displacement_mean": found.mean_mm,
        "displacement_max": found.max_mm,
    }
    return [
        folded_share("folding", "body", inside),
        folded_share("folding", "grid", jacobian),
        folded_share("folding_central", "body", found.central[body]),
        folded_share("folding_central", "grid", found.central),
        largest_fold(jacobian, subject.fixed.grid),
        Measure("jacobian_min", "body", float(inside.min()), place=as_place(lowest[0])),
        Measure("jacobian_min", "grid", float(jacobian.min())),
        *(Measure(key, "body", float(value)) for key, value in values.items()),
        Measure("sd_log_jacobian_learn2reg", "grid", learn2reg_sd_log_jacobian(found.central)),
    ]


def learn2reg_sd_log_jacobian(jacobian: np.ndarray) -> float | None:
    """SDlogJ exactly as the Learn2Reg challenge evaluates it: std(log(clip(J + 3, 1e-9, 1e9)))
    without the two outer layers, J by central differences. The 3 that it adds makes folding
    invisible; the percentage of folded voxels tells it. None for images of fewer than five slices
    along an axis.

    Source: MDL-UzL/L2R, ``evaluation/utils.py`` and ``evaluation.py``.
    """
    if min(jacobian.shape) < 5:
        return None
    inner = jacobian[2:-2, 2:-2, 2:-2].astype(np.float64)
    return float(np.log(np.clip(inner + 3, 1e-9, 1e9)).std())


def largest_fold(jacobian: np.ndarray, grid: Grid) -> Measure:
    """Volume (mm³), voxels (``n``) and place of the largest connected part of J <= 0 (voxels that
    share a face, an edge or a corner); the place is its voxel nearest to its centroid."""
    if not np.isfinite(jacobian).all():
        return Measure("largest_fold", "grid", None, note=NOT_FINITE)
    found = folded_clusters(jacobian, grid, most=1)
    if not found:
        return Measure("largest_fold", "grid", 0.0, n=0)
    place, count = found[0]
    volume = count * float(np.prod(grid.spacing))
    return Measure("largest_fold", "grid", volume, n=count, place=place)


def folded_clusters(
    jacobian: np.ndarray, grid: Grid, most: int
) -> list[tuple[tuple[float, float, float], int]]:
    """Place (LPS mm) and voxels of the ``most`` largest connected parts of J <= 0, the largest
    first; the place is the voxel nearest to the centroid."""
    folded = jacobian <= 0
    if not folded.any():
        return []
    clusters, _ = ndimage.label(folded, np.ones((3, 3, 3)))
    sizes = np.bincount(clusters.ravel())
    sizes[0] = 0
    boxes = ndimage.find_objects(clusters)
    found = []
    for label in np.argsort(-sizes, kind="stable")[:most].tolist():
        if not sizes[label]:
            break
        box = boxes[label - 1]
        index = np.argwhere(clusters[box] == label) + [s.start for s in box]
        nearest = np.linalg.norm(index - index.mean(axis=0), axis=1).argmin()
        place = grid.to_physical(index[nearest, ::-1][None].astype(float))[0]
        found.append((as_place(place), int(sizes[label])))
    return found


def folded_share(key: str, region: str, jacobian: np.ndarray) -> Measure:
    """Percentage of the determinants of a region that are 0 or less; not measured when one of them
    is not finite."""
    if not np.isfinite(jacobian).all():
        return Measure(key, region, None, n=int(jacobian.size), note=NOT_FINITE)
    share = float(100 * np.mean(jacobian <= 0)) if jacobian.size else 0.0
    return Measure(key, region, share, n=int(jacobian.size))


def _index_of_minimum(values: np.ndarray) -> np.ndarray:
    """Index (1, 3), x y z, of the smallest value of an array (Z, Y, X)."""
    found = np.unravel_index(int(values.argmin()), values.shape)
    return np.asarray(found, dtype=float)[None, ::-1]
