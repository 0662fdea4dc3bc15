"""Features in fewer channels: squared differences are kept, and grids and orders are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from GlideRegLib.errors import Cancelled
from GlideRegLib.features import compressed
from GlideRegLib.features.compressed import COMPONENTS, compressed_features
from GlideRegLib.features.local_contrast import local_contrast
from GlideRegLib.features.mind import mind_ssc
from GlideRegLib.optimize.warping import pool
from GlideRegLib.settings import FeatureSettings

SHAPE = (40, 24, 32)
SETTINGS = FeatureSettings()


def image(seed: int) -> torch.Tensor:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.2)
    return torch.from_numpy(values * (200 / values.std())).float()


IMAGES = (image(0), image(1))


def whole(values: torch.Tensor, weight: float) -> torch.Tensor:
    """All channels at full resolution, as the pyramid makes them without compression."""
    found = mind_ssc(values)
    if weight == 0:
        return found
    return torch.cat((found, local_contrast(values, SETTINGS.contrast_floor) * weight**0.5))


def squared_differences(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (pair[0].float() - pair[1].float()).square().sum(dim=0)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_with_all_components_the_squared_differences_are_the_same(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = 13 if weight else 12
    monkeypatch.setattr(compressed, "COMPONENTS", channels)
    found = compressed_features(IMAGES, SETTINGS, weight)
    pair = tuple(whole(values, weight) for values in IMAGES)
    for factor in (1, 2, 4):
        expected = squared_differences(tuple(pool(f, factor) for f in pair))
        assert found[factor][0].shape == (channels, *(n // factor for n in SHAPE))
        torch.testing.assert_close(
            squared_differences(found[factor]), expected, atol=0.01, rtol=0.01
        )


def test_the_components_that_are_kept_hold_nearly_all_of_the_squared_differences() -> None:
    found = compressed_features(IMAGES, SETTINGS, 1.0)
    pair = tuple(whole(values, 1.0) for values in IMAGES)
    for factor in (1, 2):
        assert found[factor][0].shape[0] == COMPONENTS
        expected = squared_differences(tuple(pool(f, factor) for f in pair))
        kept = squared_differences(found[factor])
        assert float((kept - expected).max()) < 0.02  # components never add to a distance
        assert float(kept.sum() / expected.sum()) > 0.75


def test_coarse_features_keep_all_channels_exactly() -> None:
    found = compressed_features(IMAGES, SETTINGS, 1.0)[4]
    for values, features in zip(IMAGES, found, strict=True):
        torch.testing.assert_close(features, pool(whole(values, 1.0), 4), atol=1e-5, rtol=1e-5)


def test_each_image_lies_in_the_order_in_which_the_solver_reads_it() -> None:
    found = compressed_features(IMAGES, SETTINGS, 1.0)
    for factor in (1, 2):
        fixed, moving = found[factor]
        assert fixed.dtype == moving.dtype == torch.float16
        assert fixed.is_contiguous()
        assert moving.permute(1, 2, 3, 0).is_contiguous()


def test_the_same_images_give_the_same_features() -> None:
    first, second = (compressed_features(IMAGES, SETTINGS, 1.0)[1] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_it_can_be_canceled() -> None:
    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        compressed_features(IMAGES, SETTINGS, 1.0, check)
