"""MIND-SSC against the definition, written down slowly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from GlideRegLib.errors import Cancelled
from GlideRegLib.features.mind import PAIRS, mind_ssc

NEIGHBORS = [n for n in product((-1, 0, 1), repeat=3) if sum(map(abs, n)) == 1]


def shifted(image: np.ndarray, offset: tuple[int, int, int]) -> np.ndarray:
    """I(x + offset), the image continued by its border values."""
    for axis, (step, size) in enumerate(zip(offset, image.shape, strict=True)):
        image = image.take(np.clip(np.arange(size) + step, 0, size - 1), axis=axis)
    return image


def value_at(image: np.ndarray, position: np.ndarray) -> float:
    return image[tuple(np.clip(position, 0, np.array(image.shape) - 1))]


def patch_distance_at(
    image: np.ndarray, x: np.ndarray, a: np.ndarray, b: np.ndarray, radius: int, dilation: int
) -> float:
    """Mean over a patch of (I(x + d a + p) - I(x + d b + p))^2, voxel by voxel."""
    patch = [np.array(p) for p in product(range(-radius, radius + 1), repeat=3)]
    differences = [
        value_at(image, x + dilation * a + p) - value_at(image, x + dilation * b + p) for p in patch
    ]
    return float(np.mean(np.square(differences)))


def patch_distances(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """The same for all voxels and all 12 pairs at once, by shifted copies of the image."""
    image = image.astype(np.float64)
    patch = list(product(range(-radius, radius + 1), repeat=3))
    maps = []
    for a, b in PAIRS:
        total = 0.0
        for p in patch:
            here = [shifted(image, tuple(dilation * np.array(n) + p)) for n in (a, b)]
            total = total + (here[0] - here[1]) ** 2
        maps.append(total / len(patch))
    return np.stack(maps)


def descriptors(distances: np.ndarray) -> np.ndarray:
    """exp(-(D - min D) / V), V the mean over channels within [1e-3, 1e3] of its global mean."""
    distances = distances - distances.min(axis=0)
    variance = distances.mean(axis=0)
    variance = np.clip(variance, 1e-3 * variance.mean(), 1e3 * variance.mean())
    return np.exp(-distances / variance)


def reference(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    return descriptors(patch_distances(image, radius, dilation))


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 100, shape).astype(np.float32)


def found(image: np.ndarray, *args: int, **kwargs: int) -> np.ndarray:
    return mind_ssc(torch.from_numpy(image), *args, **kwargs).numpy()


def block_means(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over whole blocks of factor^3 voxels; a remainder is left out."""
    z, y, x = (n // factor for n in values.shape[1:])
    cut = values[:, : z * factor, : y * factor, : x * factor]
    return cut.reshape(12, z, factor, y, factor, x, factor).mean(axis=(2, 4, 6))


def test_there_are_twelve_pairs_of_neighbors_at_squared_distance_two() -> None:
    expected = {
        frozenset((a, b))
        for a, b in product(NEIGHBORS, NEIGHBORS)
        if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 2
    }
    assert {frozenset(pair) for pair in PAIRS} == expected
    assert len(PAIRS) == len(expected) == 12


def test_the_shifted_copies_of_this_file_agree_with_plain_loops() -> None:
    image = noise((6, 5, 7))
    fast = patch_distances(image, 1, 2)
    random = np.random.default_rng(1)
    for _ in range(40):
        x = random.integers(0, image.shape)
        c = int(random.integers(12))
        a, b = (np.array(n) for n in PAIRS[c])
        slow = patch_distance_at(image.astype(float), x, a, b, 1, 2)
        np.testing.assert_allclose(fast[c][tuple(x)], slow, rtol=1e-12)


@pytest.mark.parametrize("shape", [(12, 10, 8), (11, 9, 13), (35, 7, 9), (5, 4, 3)])
@pytest.mark.parametrize(("radius", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2)])
def test_descriptors_equal_the_definition_at_every_voxel_and_border(
    shape: tuple[int, int, int], radius: int, dilation: int
) -> None:
    image = noise(shape)
    np.testing.assert_allclose(
        found(image, radius, dilation), reference(image, radius, dilation), atol=2e-5
    )


@pytest.mark.parametrize("pool", [2, 3, 4, 6])
@pytest.mark.parametrize("size", [(36, 12, 24), (36, 24, 12)])
def test_pooled_descriptors_are_block_means_of_the_full_ones(
    pool: int, size: tuple[int, int, int]
) -> None:
    image = noise(size)
    expected = block_means(reference(image, 1, 2), pool)
    np.testing.assert_allclose(found(image, 1, 2, pool=pool), expected, atol=2e-5)


@pytest.mark.parametrize("pool", [2, 3, 4])
def test_the_remainder_of_an_odd_size_is_dropped_at_the_far_end(pool: int) -> None:
    image = noise((37, 11, 9))
    whole = [n // pool * pool for n in image.shape]
    expected = block_means(reference(image[: whole[0], : whole[1], : whole[2]], 1, 2), pool)
    result = found(image, 1, 2, pool=pool)
    assert result.shape == (12, *(n // pool for n in image.shape))
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_a_linear_ramp_has_the_descriptor_that_can_be_computed_by_hand() -> None:
    """I = x: 8 pairs differ by one dilation in x, 4 do not: exp(-1 / (8/12)) and 1."""
    image = np.broadcast_to(np.arange(15, dtype=np.float32) * 7, (15, 15, 15)).copy()
    result = found(image, 1, 2)[:, 7, 7, 7]
    for (a, b), value in zip(PAIRS, result, strict=True):
        expected = 1.0 if a[2] == b[2] else np.exp(-1.5)
        assert value == pytest.approx(expected, abs=1e-5)
    assert sum(a[2] == b[2] for a, b in PAIRS) == 4


def test_values_lie_above_zero_up_to_one_and_the_best_pair_has_one() -> None:
    result = found(noise((20, 20, 20)), 1, 2)
    assert result.min() > 0
    np.testing.assert_allclose(result.max(axis=0), 1.0)


@pytest.mark.parametrize(("gain", "offset"), [(2.5, 300.0), (-1.0, 0.0), (-0.01, 5.0)])
def test_brightness_contrast_and_inversion_do_not_matter(gain: float, offset: float) -> None:
    image = noise((16, 14, 12))
    expected = found(image, 1, 2)
    np.testing.assert_allclose(found(gain * image + offset, 1, 2), expected, atol=1e-3)


def faint_and_strong(depth: int) -> np.ndarray:
    """Noise of 100 in the last third, of 0.5 before: there the variance is below the clamp."""
    image = noise((depth, 12, 12))
    image[: depth * 2 // 3] *= 0.005
    return image


@pytest.mark.parametrize("depth", [24, 48, 66, 144])
def test_the_variance_is_clamped_by_the_mean_of_the_whole_image(depth: int) -> None:
    """However many slabs there are, and whatever the first of them holds."""
    image = faint_and_strong(depth)
    expected = reference(image, 1, 2)
    assert (expected[:, : depth // 3] > 0.5).mean() > 0.9  # the clamp flattens faint noise
    np.testing.assert_allclose(found(image, 1, 2), expected, atol=1e-4)
    pooled = found(image, 1, 2, pool=2)
    np.testing.assert_allclose(pooled, block_means(expected, 2), atol=1e-4)


def test_empty_slices_in_front_do_not_spoil_the_descriptors_of_the_others() -> None:
    """After an initial shift the first slices hold nothing but the background."""
    image = noise((40, 12, 12))
    image[:20] = -1024.0
    np.testing.assert_allclose(found(image, 1, 2), reference(image, 1, 2), atol=2e-5)


def test_a_single_bright_voxel_is_limited_by_the_upper_clamp() -> None:
    image = np.zeros((64, 64, 64), np.float32)
    image[30, 31, 32] = 1e4
    distances = patch_distances(image, 1, 1)
    lowered = distances - distances.min(axis=0)
    variance = lowered.mean(axis=0)
    assert variance.max() > 1e3 * variance.mean()
    np.testing.assert_allclose(found(image, 1, 1), descriptors(distances), atol=1e-4)


def test_a_constant_image_has_ones_and_no_nan() -> None:
    np.testing.assert_array_equal(found(np.full((9, 8, 7), 42.0, np.float32), 1, 2), 1.0)


def test_the_image_itself_is_left_alone() -> None:
    image = torch.from_numpy(noise((9, 8, 7)))
    before = image.clone()
    mind_ssc(image, 1, 2, pool=2)
    assert torch.equal(image, before)


def test_a_wish_to_cancel_is_heard_between_slabs() -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        mind_ssc(torch.from_numpy(noise((80, 8, 8))), 1, 2, check=check)
    assert len(calls) == 3
