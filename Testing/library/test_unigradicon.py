"""uniGradICON's own package behind our adapter, with a checkpoint of our own: this proves the way
through it (axes, direction, units), nothing of its accuracy. Skipped where it is not installed:
``pip install unigradicon`` (1.0.6) in an environment of its own runs it, about a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from GlideRegLib.geometry import Grid
from GlideRegLib.methods import find
from GlideRegLib.pair import understand
from GlideRegLib.prepare import prepare_pair
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume

#: What the last network adds everywhere, in its units: shares of the image along z, y, x.
SHIFT = (0.02, -0.05, 0.03)


@pytest.fixture(scope="module")
def package() -> object:
    """The package with a network of 72 voxels a side instead of 175."""
    module = pytest.importorskip("unigradicon")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "input_shape", [1, 1, 72, 72, 72])
        yield module


@pytest.fixture
def checkpoint(package: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights but for the last layer, which moves everything by ``SHIFT``; in the folder of
    weights under the name of the download."""
    torch.manual_seed(0)
    network = package.make_network(package.input_shape, include_last_step=True).regis_net
    state = network.state_dict()
    last = "netPsi.net.lastConv."
    state[last + "weight"].zero_()
    # The network multiplies what it gives by a tenth.
    state[last + "bias"].copy_(torch.tensor(SHIFT) * 10)
    path = tmp_path / "Step_2_final.trch"
    torch.save(state, path)
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path))
    return path


@pytest.mark.parametrize(
    ("name", "options"), [("unigradicon", {}), ("unigradicon-io", {"iterations": 1})]
)
def test_what_the_network_says_arrives_in_lps_mm(
    name: str, options: dict, checkpoint: Path, small_pair: PhantomPair
) -> None:
    method = find(name)
    assert method.missing() is None
    settings = with_changes(
        Settings.preset("fast"),
        threads=1,
        initial="none",
        grid={"spacing_mm": 4.0},
        method=name,
        method_options=options,
    )
    pair = (small_pair.fixed, small_pair.moving)
    result = method.register(*pair, settings)
    moved = result.transform_points(small_pair.fixed_landmarks) - small_pair.fixed_landmarks
    # From the middle of its first voxel to that of its last: all but one of its 72.
    size = np.array(working_grid(pair, settings).size) * 4.0 * 71 / 72
    expected = np.array(SHIFT[::-1]) * size
    # One step of the optimization moves it a little.
    np.testing.assert_allclose(moved, np.tile(expected, (len(moved), 1)), atol=0.2)
    assert result.report["method"] == name
    assert {"unigradicon", "icon_registration"} <= set(result.report["provenance"]["versions"])


def working_grid(pair: tuple[Volume, Volume], settings: Settings) -> Grid:
    """The grid on which the network is shown the pair, without a start."""
    modality, counted, _ = understand(*pair, settings, (None, None))
    size = (settings.grid.spacing_mm, settings.grid.margin_mm)
    return prepare_pair(*pair, np.eye(4), *size, modality, counted, 1).grid
