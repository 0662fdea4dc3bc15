"""Continuous refinement on a stand-in for the feature pyramid: the Adam way, and the levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_scenes import waves

from GlideRegLib.errors import Cancelled
from GlideRegLib.geometry import Grid, index_tensor
from GlideRegLib.optimize.energy import FeaturePair, energy, laplacian
from GlideRegLib.optimize.initial import Starts
from GlideRegLib.optimize.refine import effective_levels, refine
from GlideRegLib.optimize.warping import pool, resize_displacement
from GlideRegLib.progress import Progress
from GlideRegLib.settings import Level, RefineSettings

SHAPE = (32, 32, 32)
CHANNELS = [waves(seed, 24, 12.0, 30.0) for seed in range(4)]


def features_at(positions: torch.Tensor) -> torch.Tensor:
    points = positions.reshape(3, -1).T.numpy()
    values = np.stack([channel(points) for channel in CHANNELS])
    return torch.from_numpy(values.reshape(4, *positions.shape[1:]))


def known_deformation(amplitude: float = 2.5) -> torch.Tensor:
    """Full-resolution voxels."""
    x, y, z = index_tensor(SHAPE) * (2 * np.pi / 50)
    u = torch.stack((torch.sin(y + 1) * torch.cos(z), torch.sin(z + x), torch.cos(x - y + 2)))
    return amplitude * u


class Features:
    """Stands in for the pyramid: full-resolution features, pooled; no reduction that learns."""

    def __init__(self, local: tuple, global_: tuple | None = None, trust: tuple | None = None):
        self._volumes = {"local": local, "global": global_}
        self._trust = trust or (torch.ones(SHAPE), torch.ones(SHAPE))
        self.grid = Grid(SHAPE[::-1], (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
        self.reduced = None
        self.asked: list[tuple[str, int]] = []

    def grid_at(self, pooling: int) -> Grid:
        return self.grid.pooled(pooling)

    def points_at(self, pooling: int) -> None:
        return None

    modality, has_compartments = "ct", False

    def compartments_at(self, pooling: int) -> None:
        return None

    def trust_at(self, pooling: int) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(pool(t[None], pooling)[0] for t in self._trust)

    def local(self, pooling: int, weight: float = 1.0) -> FeaturePair:
        self.asked.append(("local", pooling))
        return FeaturePair(*(pool(v, pooling) for v in self._volumes["local"]), weight)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    positions = index_tensor(SHAPE)
    return features_at(positions + known_deformation()), features_at(positions)


def error_of(u: torch.Tensor) -> float:
    """Mean error inside, full-resolution voxels."""
    difference = resize_displacement(u, SHAPE) - known_deformation()
    return float(difference[:, 5:-5, 5:-5, 5:-5].norm(dim=0).mean())


def adam(**changes: object) -> RefineSettings:
    values = {"solver": "adam", "adam_iterations": 80, "adam_learning_rate": 0.1} | changes
    return RefineSettings(**values)


def start() -> Starts:
    return Starts(torch.zeros(3, 8, 8, 8), None)


def test_adam_finds_a_known_deformation_at_half_resolution(pair: tuple) -> None:
    found, pooling = refine(Features(pair), start(), adam(), False, True, Progress())
    assert pooling == 2
    assert found.shape == (3, 16, 16, 16)
    assert not found.requires_grad
    assert error_of(torch.zeros(3, 16, 16, 16)) > 1.5
    assert error_of(found) < 0.25


def test_more_adam_iterations_lower_the_energy_that_is_written_down(pair: tuple) -> None:
    """beta SSD (sum over channels, mean over voxels) + lambda mean over voxels and components."""
    features = Features(pair)
    settings = adam()
    energies = []
    for iterations in (1, 20, 80):
        chosen = adam(adam_iterations=iterations)
        u, _ = refine(features, start(), chosen, False, True, Progress())
        data = energy([features.local(2, settings.adam_beta)], u, 0.0)[0]
        energies.append(data + settings.adam_bending * float(laplacian(u).square().mean()))
    assert energies[0] > 2 * energies[1] > 2 * energies[2]


def test_a_larger_bending_weight_gives_a_smoother_field(pair: tuple) -> None:
    roughness = []
    for bending in (0.0, 1.25, 100.0):
        chosen = adam(adam_iterations=40, adam_bending=bending)
        u, _ = refine(Features(pair), start(), chosen, False, True, Progress())
        roughness.append(float(laplacian(u).square().mean()))
    assert roughness[0] > 1.02 * roughness[1] > 2 * roughness[2]


def test_adam_starts_from_the_displacement_that_it_is_given(pair: tuple) -> None:
    given = resize_displacement(known_deformation(), (8, 8, 8))
    found, _ = refine(
        Features(pair),
        Starts(given, None),
        adam(adam_iterations=1, adam_learning_rate=1e-4),
        False,
        True,
        Progress(),
    )
    assert error_of(found) < 0.6  # blurred by the three box filters, but there


def test_adam_ignores_voxels_without_trust(pair: tuple) -> None:
    trust = torch.ones(SHAPE)
    trust[8:24, 8:24, 8:24] = 0
    spoiled = pair[0].clone()
    spoiled[:, 8:24, 8:24, 8:24] = 50.0
    few = adam(adam_iterations=5)
    found = [
        refine(
            Features((fixed, pair[1]), trust=(trust, torch.ones(SHAPE))),
            start(),
            few,
            False,
            True,
            Progress(),
        )[0]
        for fixed in (pair[0], spoiled)
    ]
    torch.testing.assert_close(*found, atol=0, rtol=0)


def test_adam_can_be_repeated_bit_by_bit(pair: tuple) -> None:
    first, second = (
        refine(Features(pair), start(), adam(adam_iterations=5), False, True, Progress())[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_adam_hears_a_wish_to_cancel(pair: tuple) -> None:
    calls = []

    def should_cancel() -> bool:
        calls.append(1)
        return len(calls) > 3

    with pytest.raises(Cancelled):
        refine(Features(pair), start(), adam(), False, True, Progress(should_cancel=should_cancel))
    assert len(calls) == 4


# --- Gauss-Newton levels --------------------------------------------------------------------------


def levels(*poolings: int, iterations: int = 6) -> RefineSettings:
    return RefineSettings(levels=tuple(Level(p, iterations, 0.15, 1.0, 0.1) for p in poolings))


def test_finer_levels_bring_the_field_nearer_to_the_truth(pair: tuple) -> None:
    features = Features(pair)
    errors = []
    for poolings in ((4,), (4, 2), (4, 2, 1)):
        found, pooling = refine(features, start(), levels(*poolings), False, True, Progress())
        assert pooling == max(poolings[-1], 2)  # the finest grid that a field lives on
        assert found.shape[1:] == features.grid_at(pooling).shape
        errors.append(error_of(found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_a_level_with_nothing_left_to_do_ends_at_once(pair: tuple) -> None:
    updates = []
    same = Features((pair[1], pair[1]))
    found, _ = refine(
        same, start(), levels(4, iterations=200), False, True, Progress(callback=updates.append)
    )
    assert len(updates) == 1
    assert not found.any()


def test_without_global_features_no_level_weighs_them() -> None:
    plain = RefineSettings().levels
    assert [v.alpha for v in effective_levels(plain, False, True)] == [0.0] * len(plain)
    assert effective_levels(plain, True, True) == list(plain)


def test_global_features_alone_carry_all_levels_but_the_one_at_full_resolution() -> None:
    alone = effective_levels(RefineSettings().levels, True, False)
    assert [v.pooling for v in alone] == [4, 2]
    assert all(v.alpha > 0 and v.beta == 0 for v in alone)
    single = effective_levels((Level(1, 4, 0.0, 1.0, 0.4),), True, False)
    assert [v.pooling for v in single] == [1]
    assert single[0].alpha > 0
