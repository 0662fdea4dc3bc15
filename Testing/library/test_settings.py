"""Settings: presets, JSON, and every wrong value refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from GlideRegLib.errors import SettingsError
from GlideRegLib.settings import (
    PRESETS,
    ConvexSettings,
    FeatureSettings,
    Level,
    RefineSettings,
    Settings,
    with_changes,
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_says_its_name(name: str) -> None:
    settings = Settings.preset(name)
    settings.check()
    assert settings.preset_name == name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str) -> None:
    settings = Settings.preset(name)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_the_presets_have_the_spacings_of_the_design_and_the_papers_values() -> None:
    spacing = {name: Settings.preset(name).grid.spacing_mm for name in PRESETS}
    assert spacing == {"fast": 2.0, "standard": 1.5, "fine": 1.0, "paper": 1.0}
    paper = Settings.preset("paper")
    assert paper.refine.solver == "adam"
    assert paper.refine.adam_iterations == 800
    assert paper.refine.adam_learning_rate == 1.0
    assert (paper.refine.adam_alpha, paper.refine.adam_beta) == (0.5, 3.5)
    assert paper.refine.adam_bending == 1.25
    assert paper.reduction.literal
    assert (paper.reduction.reconstruction, paper.reduction.divergence) == (7.5e4, 20.0)
    assert paper.features.input_side == 1024
    assert paper.convex.global_levels == paper.convex.local_levels == ((6, 4),)


def test_the_global_features_are_gone_at_the_finest_level() -> None:
    """Kept to the end they cost accuracy (ALGORITHMS.md, section 4)."""
    for name in ("fast", "standard", "fine"):
        assert Settings.preset(name).refine.levels[-1].alpha == 0


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'slow'.*fast, standard, fine, paper"):
        Settings.preset("slow")


def test_changed_settings_survive_json() -> None:
    changed = with_changes(
        Settings.preset("fast"),
        seed=7,
        initial="start.tfm",
        features={"encoder": "mobile_sam", "weights": "w.pth", "input_side": 512},
        convex={"local_levels": [[4, 3], [2, 2]], "coefficients": [0.1, 1]},
        refine={"levels": [{"pooling": 2, "iterations": 3, "alpha": 0, "beta": 1, "bending": 0.5}]},
    )
    changed.check()
    back = Settings.from_dict(json.loads(json.dumps(changed.to_dict())))
    assert back == changed
    assert back.refine.levels == (Level(2, 3, 0.0, 1.0, 0.5),)
    assert back.convex.local_levels == ((4, 3), (2, 2))
    assert back.features.ct_windows == ((-1000.0, 400.0),) * 3


def test_what_json_does_not_name_keeps_the_value_of_its_preset() -> None:
    settings = Settings.from_dict({"preset_name": "fast", "refine": {"max_step": 2.0}})
    assert settings.grid.spacing_mm == 2.0
    assert settings.refine.max_step == 2.0
    assert settings.refine.levels == Settings.preset("fast").refine.levels
    assert Settings.from_dict({}) == Settings()


def test_whole_numbers_are_taken_where_fractions_are_expected() -> None:
    settings = Settings.from_dict({"grid": {"spacing_mm": 2}})
    assert isinstance(settings.grid.spacing_mm, float)


def test_with_changes_leaves_the_original_alone() -> None:
    base = Settings()
    changed = with_changes(base, grid={"spacing_mm": 3.0})
    assert base == Settings()
    assert changed.grid.spacing_mm == 3.0
    assert dataclasses.replace(changed, grid=base.grid) == base


def test_which_features_take_part() -> None:
    both, local, none, only_global = (
        with_changes(Settings(), features=f)
        for f in ({}, {"use": "local"}, {"encoder": "none"}, {"use": "global"})
    )
    assert (both.uses_global, both.uses_local) == (True, True)
    assert (local.uses_global, local.uses_local) == (False, True)
    assert (none.uses_global, none.uses_local) == (False, True)
    assert (only_global.uses_global, only_global.uses_local) == (True, False)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"sede": 3}, "'sede' is not one of the settings"),
        ({"grid": {"spacing": 2.0}}, "'spacing' is not one of the grid"),
        ({"refine": {"levels": [{"pooling": 2, "steps": 3}]}}, "'steps'"),
        ({"preset_name": "slow"}, "'slow'"),
    ],
)
def test_unknown_names_are_refused_and_named(data: dict, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_dict(data)


@pytest.mark.parametrize(
    "data",
    [
        {"seed": "3"},
        {"seed": 3.5},
        {"seed": True},
        {"seed": None},
        {"modality": 1},
        {"grid": 2.0},
        {"grid": [2.0]},
        {"grid": None},
        {"grid": {"spacing_mm": "2"}},
        {"grid": {"spacing_mm": None}},
        {"grid": {"spacing_mm": [2.0]}},
        {"features": {"cache": 1}},
        {"features": {"weights": 5}},
        {"features": {"input_side": "1024"}},
        {"features": {"input_side": 512.5}},
        {"features": {"ct_windows": [1, 2, 3]}},
        {"features": {"ct_windows": [[-1000, "high"], [0, 1], [0, 1]]}},
        {"features": {"ct_windows": "lung"}},
        {"convex": {"local_levels": [8, 4]}},
        {"convex": {"local_levels": [[8]]}},
        {"convex": {"local_levels": [[8, 4.5]]}},
        {"convex": {"coefficients": ["a"]}},
        {"convex": {"coefficients": 0.1}},
        {"refine": {"levels": 3}},
        {"refine": {"levels": [4]}},
        {"refine": {"levels": [{"pooling": 4}]}},
        {"refine": {"levels": [[4, 6, 0.15, 1.0, 0.4]]}},
        {
            "refine": {
                "levels": [
                    {"pooling": "4", "iterations": 6, "alpha": 0.1, "beta": 1, "bending": 0.4}
                ]
            }
        },
    ],
    ids=str,
)
def test_values_of_the_wrong_type_are_refused_with_a_sentence(data: dict) -> None:
    with pytest.raises(SettingsError, match=r"\.$"):
        Settings.from_dict(data)


@pytest.mark.parametrize("data", [[], "fast", 3, None])
def test_json_that_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(SettingsError, match="object"):
        Settings.from_dict(data)


OUT_OF_RANGE = [
    {"modality": "pet"},
    {"device": "tpu"},
    {"threads": -1},
    {"seed": -1},
    {"seed": 2**31},
    {"grid": {"spacing_mm": 0.1}},
    {"grid": {"spacing_mm": 20.0}},
    {"grid": {"spacing_mm": math.nan}},
    {"grid": {"margin_mm": -1.0}},
    {"features": {"use": "all"}},
    {"features": {"use": "global", "encoder": "none"}},
    {"features": {"cell_mm": 0.0}},
    {"features": {"slice_mm": 50.0}},
    {"features": {"input_side": 32}},
    {"features": {"ct_windows": [[0, 0], [0, 1], [0, 1]]}},
    {"features": {"ct_windows": [[0, 1], [0, 1]]}},
    {"features": {"mind_radius": 0}},
    {"features": {"mind_dilation": 0}},
    {"reduction": {"kind": "umap"}},
    {"reduction": {"channels": 0}},
    {"reduction": {"channels": 65}},
    {"reduction": {"hidden": 4}},
    {"reduction": {"batch": 1}},
    {"reduction": {"learning_rate": 0.0}},
    {"reduction": {"balance": -1.0}},
    {"reduction": {"warm_up": -1}},
    {"reduction": {"static_steps": -1}},
    {"reduction": {"steps_per_update": -1}},
    {"convex": {"local_levels": [[3, 4]]}},
    {"convex": {"local_levels": [[8, 0]]}},
    {"convex": {"local_levels": []}},
    {"convex": {"global_levels": []}},
    {"convex": {"consistency_steps": -1}},
    {"convex": {"coefficients": [-0.1]}},
    {"refine": {"solver": "lbfgs"}},
    {"refine": {"levels": []}},
    {"refine": {"levels": [{"pooling": 3, "iterations": 1, "alpha": 0, "beta": 1, "bending": 1}]}},
    {"refine": {"levels": [{"pooling": 2, "iterations": -1, "alpha": 0, "beta": 1, "bending": 1}]}},
    {"refine": {"levels": [{"pooling": 2, "iterations": 1, "alpha": -1, "beta": 1, "bending": 1}]}},
    {"refine": {"levels": [{"pooling": 2, "iterations": 1, "alpha": 0, "beta": 1, "bending": 0}]}},
    {"refine": {"levels": [{"pooling": 2, "iterations": 1, "alpha": 0, "beta": 0, "bending": 1}]}},
    {
        "features": {"encoder": "none"},
        "refine": {
            "levels": [{"pooling": 2, "iterations": 1, "alpha": 1, "beta": 0, "bending": 1}]
        },
    },
    {"features": {"use": "local"}, "refine": {"solver": "adam", "adam_beta": 0.0}},
    {"features": {"contrast_weight": -1}},
    {"features": {"contrast_floor": 0}},
    {"refine": {"max_step": 0.0}},
    {"refine": {"repair_below": 1.0}},
    {"refine": {"adam_iterations": 0}},
    {"refine": {"adam_learning_rate": 0.0}},
    {"refine": {"adam_pooling": 3}},
    {"refine": {"adam_refresh": 0}},
    {"refine": {"adam_alpha": -1.0}},
    {"refine": {"adam_beta": -1.0}},
    {"refine": {"adam_bending": -1.0}},
]


@pytest.mark.parametrize("data", OUT_OF_RANGE, ids=str)
def test_values_out_of_range_are_refused_with_a_sentence(data: dict) -> None:
    settings = Settings.from_dict(data)
    with pytest.raises(SettingsError, match=r"^These settings cannot be used: .*\.$"):
        settings.check()


def test_all_reasons_are_listed_at_once() -> None:
    settings = Settings(
        seed=-5,
        device="tpu",
        features=FeatureSettings(cell_mm=0.0, mind_radius=9),
        convex=ConvexSettings(local_levels=((5, 4),)),
        refine=RefineSettings(levels=(Level(3, 2, 0.0, 1.0, 0.4),)),
    )
    with pytest.raises(SettingsError) as raised:
        settings.check()
    text = str(raised.value)
    for reason in (
        "seed must be 0 to",
        "device must be auto, cpu, cuda, not 'tpu'",
        "cell_mm must be 1 to 40, not 0",
        "mind_radius must be 1 to 4, not 9",
        "a convex level pools by 1, 2, 4, 6, 8 or 16, not 5",
        "a refinement level pools by 1, 2, 4 or 8, not 3",
    ):
        assert reason in text


def test_settings_cannot_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().seed = 3
