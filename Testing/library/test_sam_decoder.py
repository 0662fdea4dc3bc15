"""SAM's mask decoder: against transformers, strict loading of official layouts, bad files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from GlideRegLib.errors import SettingsError, WeightsError
from GlideRegLib.features.decoders import load_segmenter
from GlideRegLib.features.decoders.sam import SamDecoder

#: Our (official) names to those of transformers.
RENAMED = (
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "IMAGE"),
    (r"point_embeddings\.", "point_embed."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0", r"\1.proj_in"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.1", r"\1.layers.0"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.2", r"\1.proj_out"),
)
SIDE, CELLS = 128, 16


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the user's weights, and none reaches the Internet."""
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLIDEREG_WEIGHTS", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there


def random_decoder() -> SamDecoder:
    torch.manual_seed(5)
    decoder = SamDecoder().eval().requires_grad_(False)
    for values in decoder.state_dict().values():  # biases and norms too must not be trivial
        values += 0.05 * torch.randn_like(values)
    return decoder


def the_same_in_transformers(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """SamModel (its image encoder is not looked at) with these weights."""
    from transformers import SamConfig, SamModel

    tiny = {"hidden_size": 16, "num_hidden_layers": 0, "num_attention_heads": 2, "mlp_dim": 16}
    config = SamConfig(
        vision_config={**tiny, "image_size": SIDE, "patch_size": SIDE // CELLS},
        prompt_encoder_config={"image_size": SIDE, "patch_size": SIDE // CELLS},
        mask_decoder_config={"layer_norm_eps": 1e-5},  # the official program's
    )
    model = SamModel(config).eval()
    renamed = {}
    for key, value in state.items():
        for pattern, new in RENAMED:
            key = re.sub(pattern, new, key)
        renamed[key] = value
    matrix = renamed.pop("IMAGE")
    renamed["shared_image_embedding.positional_embedding"] = matrix
    renamed["prompt_encoder.shared_embedding.positional_embedding"] = matrix
    missing, unknown = model.load_state_dict(renamed, strict=False)
    assert not unknown
    assert all("mask_embed" in key or key.startswith("vision_encoder") for key in missing)
    return model


@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_masks_and_quality_equal_those_of_transformers(kind: str) -> None:
    ours = random_decoder()
    theirs = the_same_in_transformers(ours.state_dict())
    generator = torch.Generator().manual_seed(3)
    embedding = torch.randn(256, CELLS, CELLS, generator=generator)
    corners = torch.rand(3, 2, 2, generator=generator) * SIDE
    if kind == "points":
        pixels = corners[:, 0]
        given = {
            "input_points": pixels[None, :, None],
            "input_labels": torch.ones(1, 3, 1, dtype=torch.int),
        }
    else:
        pixels = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
        given = {"input_boxes": pixels[None]}
    with torch.inference_mode():
        wanted = theirs(image_embeddings=embedding[None], multimask_output=True, **given)
        # They count pixels from their centers, we take shares of the image.
        masks, quality = ours(embedding, (pixels + 0.5) / SIDE, SamDecoder.SEVERAL)
    assert wanted.pred_masks[0].std() > 0.1
    torch.testing.assert_close(masks, wanted.pred_masks[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quality, wanted.iou_scores[0], rtol=1e-4, atol=1e-4)


def test_the_real_decoder_finds_the_middle_of_a_bright_square(shared_data: Path) -> None:
    segmenter = load_segmenter("lite_medsam", shared_data / "weights" / "lite_medsam.pth")
    picture = torch.full((1, 3, 256, 256), 0.2)
    picture[..., 90:170, 60:150] = 0.8
    embedding = segmenter.encoder.encode(picture)[0]
    with torch.inference_mode():
        logits, quality = segmenter.decoder(embedding, torch.tensor([[56, 86, 154, 174]]) / 256)
    mask, truth = logits[0, 0] > 0, picture[0, 0] > 0.5
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert quality[0, 0] > 0.8


def test_what_cannot_segment_is_a_sentence(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights"
    with pytest.raises(SettingsError, match=r"'sam2\.1_hiera_tiny' has no mask decoder here"):
        load_segmenter("sam2.1_hiera_tiny")
    with pytest.raises(WeightsError, match=r"encoder of MobileSAM .* alone, not its mask decoder"):
        load_segmenter("mobile_sam", weights / "mobile_sam_image_encoder.safetensors")
    state = torch.load(weights / "lite_medsam.pth", weights_only=True)
    state.pop("mask_decoder.iou_token.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"'mask_decoder\.iou_token\.weight' is missing"):
        load_segmenter("lite_medsam", tmp_path / "other.pth", allow_unverified=True)


def test_mobile_sam_loads_its_official_layout_strictly(shared_data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = torch.load(shared_data / "weights" / "lite_medsam.pth", weights_only=True)
    # Of the official file only the encoder is here; the decoder's layout is SAM's in both.
    state = {k: v for k, v in state.items() if not k.startswith("image_encoder.")}
    encoder = load_file(shared_data / "weights" / "mobile_sam_image_encoder.safetensors")
    state.update({f"image_encoder.{k.removeprefix('image_encoder.')}": encoder[k] for k in encoder})
    torch.save(state, tmp_path / "mobile_sam.pt")
    given = tmp_path / "mobile_sam.pt"
    segmenter = load_segmenter("mobile_sam", given, allow_unverified=True)
    assert segmenter.prompts == "points" and segmenter.encoder.stride == 16
    kept = segmenter.decoder.state_dict()["mask_decoder.mask_tokens.weight"]
    torch.testing.assert_close(kept, state["mask_decoder.mask_tokens.weight"])
