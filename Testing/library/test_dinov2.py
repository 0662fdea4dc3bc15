"""DINOv2's encoder against the independent one of ``transformers``, and DINO-Reg with it.

No trained weights are at hand: random ones prove the network and the way through it, no accuracy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from GlideRegLib.errors import WeightsError
from GlideRegLib.features.encoders.dinov2 import Dinov2, Shape, load_dinov2
from GlideRegLib.methods import find
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import Settings, with_changes

SHAPE = Shape(width=128, blocks=2, side=5)


def randomized(shape: Shape) -> Dinov2:
    """A network whose every parameter counts."""
    torch.manual_seed(3)
    network = Dinov2(shape).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter) + (parameter == 1))
    return network


def save(network: Dinov2, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def oracle(network: Dinov2, registers: int) -> torch.nn.Module:
    """The model of ``transformers`` with the same weights."""
    import transformers

    kinds = ("Dinov2WithRegisters", "Dinov2")
    kind = kinds[0] if registers else kinds[1]
    extra = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        **extra,
    )
    model = getattr(transformers, f"{kind}Model")(config).eval()
    ours = dict(network.named_parameters())
    names = {
        "norm1.": "norm1.",
        "norm2.": "norm2.",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "attn.proj.": "attention.output.dense.",
        "mlp.fc1.": "mlp.fc1.",
        "mlp.fc2.": "mlp.fc2.",
    }
    state = {
        "embeddings.cls_token": ours["cls_token"],
        "embeddings.mask_token": ours["mask_token"],
        "embeddings.position_embeddings": ours["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": ours["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": ours["patch_embed.proj.bias"],
        "layernorm.weight": ours["norm.weight"],
        "layernorm.bias": ours["norm.bias"],
    }
    if registers:
        state["embeddings.register_tokens"] = ours["register_tokens"]
    renamed = any(".q_proj." in key for key in model.state_dict())  # transformers 5
    parts = ("q_proj", "k_proj", "v_proj") if renamed else ("query", "key", "value")
    inner = "attention." if renamed else "attention.attention."
    if renamed:
        names["attn.proj."] = "attention.o_proj."
    for name, value in ours.items():
        if not name.startswith("blocks."):
            continue
        _, number, rest = name.split(".", 2)
        place = f"encoder.layer.{number}."
        if rest.startswith("attn.qkv."):
            for part, piece in zip(parts, value.chunk(3), strict=True):
                state[f"{place}{inner}{part}.{rest.split('.')[-1]}"] = piece
            continue
        old = next(key for key in names if rest.startswith(key))
        state[place + rest.replace(old, names[old])] = value
    model.load_state_dict(state, strict=True)
    return model


@pytest.mark.parametrize("registers", [0, 4])
def test_the_network_gives_what_transformers_gives(registers: int, tmp_path: Path) -> None:
    network = randomized(Shape(128, 2, registers, 5))
    images = torch.rand(2, 3, 84, 56)
    encoder = load_dinov2(save(network, tmp_path / "w.pth"))
    assert (encoder.channels, encoder.stride) == (128, 14)
    found = encoder.encode(images)
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    deviation = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    with torch.no_grad():
        tokens = oracle(network, registers)((images - mean) / deviation).last_hidden_state
    expected = tokens[:, 1 + registers :].transpose(1, 2).reshape(2, 128, 6, 4)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="do not exist"):
        load_dinov2(tmp_path / "none.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="layout of DINOv2"):
        load_dinov2(tmp_path / "other.pth")
    state = randomized(SHAPE).state_dict()
    state.pop("blocks.1.norm2.bias")
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"'blocks.1.norm2.bias' is missing"):
        load_dinov2(tmp_path / "cut.pth")


def test_dinoreg_runs_on_a_file_of_weights(
    tmp_path: Path, small_pair: PhantomPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(randomized(SHAPE), tmp_path / "dinov2_vits14_pretrain.pth")
    method = find("dinoreg")
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path / "none"))
    assert "dinov2_vitl14_pretrain.pth" in method.missing()
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path))
    assert method.missing() is None
    settings = with_changes(
        Settings.preset("fast"),
        method="dinoreg",
        method_options={"adam_iterations": 10, "weights": str(path)},
        grid={"spacing_mm": 8.0},
        features={"cell_mm": 28.0, "slice_mm": 20.0},
        threads=1,
    )
    result = method.register(small_pair.fixed, small_pair.moving, settings)
    assert result.report["encoder"]["name"] == "dinov2-128"
    assert len(result.report["encoder"]["weights_sha256"]) == 64
    assert np.isfinite(result.field.vectors.numpy()).all()
