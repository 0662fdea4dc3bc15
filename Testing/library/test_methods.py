"""The methods behind one interface: the catalog, what is refused, whole runs of our own ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from small_pair import QUICK, as_arguments

from GlideRegLib import register
from GlideRegLib.cli import main
from GlideRegLib.errors import GlideRegError, InputError, SettingsError
from GlideRegLib.field import read_transform, transform_points
from GlideRegLib.methods import METHODS, find
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume

COARSE = with_changes(
    Settings.preset("fast"), grid={"spacing_mm": 4.0}, features={"encoder": "none"}, threads=1
)


def test_naming_the_methods_loads_no_pytorch() -> None:
    code = (
        "import sys, GlideRegLib.methods as m; [x.missing() for x in m.METHODS.values()];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_loads_says_its_source_and_has_usable_defaults(name: str) -> None:
    method = find(name)
    module = method.load()
    assert callable(module.register) and len(module.__doc__) > 100
    assert method.name == name and method.link.startswith("https://") and method.license_note
    assert method.problems({}) == []
    options = method.options({})
    if options is not None:
        assert is_dataclass(options)
        for option in fields(options):
            assert f"``{option.name}``" in _docs(type(options)), f"{option.name} is not explained"
    missing = method.missing()
    assert missing is None or (missing.endswith(".") and missing.count("\n") == 0)


def _docs(kind: type) -> str:
    return " ".join(base.__doc__ or "" for base in kind.__mro__)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'voxelmorph'.*glide, .*convexadam"):
        find("voxelmorph")
    with pytest.raises(SettingsError, match="voxelmorph"):
        with_changes(Settings(), method="voxelmorph").check()


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("glide", {"speed": 1}, "glide has no method_options"),
        ("glide-pca", {"speed": 1}, "no options of its own"),
        ("convexadam", {"speed": 1}, "'speed' is not one of the options of the method convexadam"),
        ("convexadam", {"search_radius": "far"}, "whole|int|type"),
        ("convexadam", {"search_radius": 99}, "search_radius must be 1 to 8, not 99"),
        ("samconvex", {"levels": [[3, 2]]}, "pools by"),
        ("samconvex", {"levels": []}, "at least one"),
        ("dinoreg-sam", {"encoder": "clip"}, "dinov2 or settings"),
        ("unigradicon", {"similarity": "ssd"}, "lncc"),
        ("ants", {"transform": "Rigid"}, "SyN"),
        ("elastix", {"grid_mm": 0.1}, "grid_mm"),
        ("fireants", {"kernel": 4}, "odd"),
        ("fireants", {"scales": [2]}, "same number"),
        ("niftyreg", {"levels": 0}, "levels"),
        ("deeds", {"grid": [4]}, "same number"),
        ("corrfield", {"search": [16]}, "same number"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(method: str, options: dict, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        with_changes(Settings(), method=method, method_options=options).check()


def test_settings_with_a_method_survive_json() -> None:
    settings = with_changes(
        COARSE, method="samconvex", method_options={"levels": [[4, 2]], "iterations": 3}
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert find("samconvex").options(settings.method_options).levels == ((4, 2),)


def test_what_a_method_cannot_take_is_refused_not_ignored(small_pair: PhantomPair) -> None:
    pair, mask = (small_pair.fixed, small_pair.moving), small_pair.fixed_labels
    points = np.zeros((4, 3))
    with pytest.raises(InputError, match=r"convexadam cannot be guided by landmarks"):
        find("convexadam").register(*pair, COARSE, landmark_constraints=(points, points))
    method = METHODS["deeds"]
    with pytest.raises(InputError, match=r"deeds cannot be guided by masks"):
        method._refuse("masks", method.takes_masks, mask is not None)


def test_a_method_that_cannot_run_says_how_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    words = ["register", "no.nii", "file.nii", "-o", str(tmp_path), "--method", "deeds"]
    assert main(words) == 2
    assert "deedsBCV" in capsys.readouterr().err.replace("\n", " ")


def test_the_list_names_every_method(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(name.split("-")[0] in printed for name in METHODS)
    assert main(["methods", "convexadam"]) == 0
    assert "search_radius=4" in capsys.readouterr().out


@pytest.fixture(scope="module")
def convexadam_files(small_files: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``glidereg register --method convexadam`` writes."""
    output = tmp_path_factory.mktemp("convexadam")
    words = ["register", *as_arguments(small_files), "-o", str(output), *QUICK]
    words += ["--method", "convexadam", "--method-option", "adam_iterations=30"]
    words += ["--fixed-landmarks", str(small_files["fixed_landmarks"])]
    words += ["--moving-landmarks", str(small_files["moving_landmarks"])]
    assert main(words) == 0
    return output


def test_another_method_writes_the_same_files_and_says_its_name(convexadam_files: Path) -> None:
    names = {path.name for path in convexadam_files.iterdir()}
    assert names >= {"warped.nii.gz", "transform.h5", "inverse_transform.h5", "report.html"}
    report = json.loads((convexadam_files / "result.json").read_text(encoding="utf-8"))
    assert report["method"] == "convexadam"
    assert report["provenance"]["settings"]["method_options"] == {"adam_iterations": 30}
    tre = report["quality"]["tre_mm"]
    assert tre["after"]["mean"] < 0.7 * tre["initial"]["mean"]
    assert report["quality"]["folding_percent"]["body"] < 0.1
    page = (convexadam_files / "report.html").read_text(encoding="utf-8")
    assert "convexadam" in page and "adam_iterations 30" in page


def test_its_transforms_are_inverse_and_carry_the_moving_image(
    convexadam_files: Path, small_pair: PhantomPair
) -> None:
    forward = read_transform(convexadam_files / "transform.h5")
    inverse = read_transform(convexadam_files / "inverse_transform.h5")
    there = transform_points(forward, small_pair.fixed_landmarks)
    back = transform_points(inverse, there) - small_pair.fixed_landmarks
    # Nodes of 8 mm: between them the inverse is interpolated.
    assert np.median(np.linalg.norm(back, axis=1)) < 0.15
    warped = Volume.from_sitk(sitk.ReadImage(str(convexadam_files / "warped.nii.gz"))).array
    still = small_pair.moving.resampled(small_pair.fixed.grid, None, -1024).array
    fixed = small_pair.fixed.array
    assert np.abs(warped - fixed).mean() < 0.8 * np.abs(still - fixed).mean()


def tre(result: object, pair: PhantomPair) -> float:
    errors = result.landmark_quality(pair.fixed_landmarks, pair.moving_landmarks)["tre_mm"]
    return errors["after"]["mean"]


def test_samconvex_reaches_as_far_as_one_big_window_at_a_fraction_of_the_cost(
    small_pair: PhantomPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a start: landmarks move 11 mm in the mean and 25 at most. The pyramid and the window
    reach 12 voxels of 4 mm; the cost is the number of candidates that are compared."""
    from GlideRegLib.methods import samconvex

    compared: list[int] = []
    original = samconvex.cost_volume

    def counted(*arguments: object) -> object:
        costs = original(*arguments)
        compared.append(costs.numel())
        return costs

    monkeypatch.setattr(samconvex, "cost_volume", counted)
    still = with_changes(COARSE, method="samconvex", initial="none")
    found, cost = {}, {}
    for name, levels in {"pyramid": [[4, 2], [2, 2]], "window": [[2, 6]]}.items():
        settings = with_changes(still, method_options={"levels": levels, "iterations": 0})
        compared.clear()
        found[name] = register(small_pair.fixed, small_pair.moving, settings)
        cost[name] = sum(compared)
    assert found["pyramid"].report["method"] == "samconvex"
    assert cost["pyramid"] < 0.1 * cost["window"]
    errors = {name: tre(result, small_pair) for name, result in found.items()}
    start = np.linalg.norm(small_pair.fixed_landmarks - small_pair.moving_landmarks, axis=1)
    assert errors["window"] < 0.5 * start.mean(), "the window reaches the motion"
    assert errors["pyramid"] < 1.1 * errors["window"]
    assert found["pyramid"].report["quality"]["folding_percent"]["body"] < 0.1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("samconvex", {"levels": [[4, 2], [2, 2]], "iterations": 0}),
        ("convexadam", {"grid_spacing": 4, "adam_iterations": 15, "published": False}),
    ],
)
def test_only_what_the_masks_let_count_is_compared(
    name: str, options: dict, small_pair: PhantomPair
) -> None:
    """A block of the fixed chest is overwritten by noise; a mask leaves it out."""
    grid = small_pair.fixed.grid
    noisy, mask = small_pair.fixed.array.copy(), np.ones(grid.shape, dtype=np.uint8)
    block = (slice(24, 56), slice(16, 48), slice(8, 36))
    generator = np.random.default_rng(1)
    noisy[block] = generator.normal(0, 400, noisy[block].shape).astype(np.float32)
    mask[block] = 0
    points = small_pair.fixed_landmarks
    index = np.round(grid.to_index(points)).astype(int)
    inside = mask[index[:, 2], index[:, 1], index[:, 0]] == 0
    errors = {}
    for masked in (False, True):
        masks = {"fixed_mask": Volume(mask, grid)} if masked else {}
        settings = with_changes(COARSE, method=name, initial="none", method_options=options)
        result = register(Volume(noisy, grid), small_pair.moving, settings, **masks)
        found = result.transform_points(points[~inside])
        off = np.linalg.norm(found - small_pair.moving_landmarks[~inside], axis=1)
        errors[masked] = off.mean()
    assert inside.sum() > 10 and errors[True] < errors[False]


def test_a_variant_of_our_own_method_is_it_with_its_settings(small_pair: PhantomPair) -> None:
    pair = (small_pair.fixed, small_pair.moving)
    settings = with_changes(
        COARSE, grid={"spacing_mm": 8.0}, refine={"levels": [_level()]}, confidence=False
    )
    plain = register(*pair, with_changes(settings, features={"use": "local"}))
    variant = register(*pair, with_changes(settings, method="glide-local"))
    assert variant.report["method"] == "glide-local" and plain.report["method"] == "glide"
    np.testing.assert_array_equal(variant.field.vectors, plain.field.vectors)


def _level() -> dict:
    return {"pooling": 4, "iterations": 2, "alpha": 0.0, "beta": 1.0, "bending": 0.4}


def test_unigradicon_downloads_nothing_and_misses_its_weights_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_pair: PhantomPair
) -> None:
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path))
    assert "Step_2_final.trch" in METHODS["unigradicon"].missing()
    given = {"weights": str(tmp_path / "none.trch")}
    assert "Step_2_final.trch" not in (METHODS["unigradicon"].missing(given) or "")
    with pytest.raises(GlideRegError):
        settings = with_changes(COARSE, method="unigradicon", method_options=given)
        register(small_pair.fixed, small_pair.moving, settings)


def test_paths_among_the_options_do_not_reach_the_report() -> None:
    from GlideRegLib.provenance import shareable_settings

    settings = with_changes(COARSE, method_options={"weights": "/home/doe/w.pth", "channels": 3})
    assert shareable_settings(settings)["method_options"] == {"weights": "file", "channels": 3}
