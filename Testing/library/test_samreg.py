"""SAMReg: regions through slices, pairs one to one, the dense field; real regions on real CT."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from benchmarks.samreg_regions import PairedRegion, commonest, hits, pair_table
from GlideRegLib.errors import Cancelled, MethodError, SettingsError
from GlideRegLib.geometry import Grid
from GlideRegLib.methods import find
from GlideRegLib.optimize.warping import resize_displacement, warp
from GlideRegLib.progress import Progress
from GlideRegLib.regions.dense import field_from_regions
from GlideRegLib.regions.find import label_map
from GlideRegLib.regions.linking import Region, fill, link_slices
from GlideRegLib.regions.matching import pair_regions
from GlideRegLib.regions.pairs import RegionPairs
from GlideRegLib.regions.proposals import ProposalRules, propose
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, read_labels, read_volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def disc(row: float, column: float, radius: float, side: int = 48) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def ball(center: tuple[float, float, float], radius: float, side: int = 48) -> torch.Tensor:
    z, y, x = torch.meshgrid(*(torch.arange(side),) * 3, indexing="ij")
    a, b, c = center
    return (z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < radius**2


# --- from slices to regions -----------------------------------------------------------------------


def test_masks_are_linked_one_to_one_through_the_slices() -> None:
    slices = [
        torch.stack([disc(12, 12 + 2 * k, 6), disc(34, 30, 7)] + ([disc(12, 40, 4)] * (k == 1)))
        for k in range(4)
    ]
    slices[2] = torch.cat([slices[2].flip(0), disc(12, 18, 4)[None]])  # competes with the first
    regions = link_slices(slices, overlap=0.4, at_least=2)
    assert [(region.first, len(region.masks)) for region in regions] == [(0, 4), (0, 4)]
    for k, mask in enumerate(regions[0].masks):
        assert torch.equal(mask, disc(12, 12 + 2 * k, 6))


def test_a_region_is_filled_between_its_slices_and_half_a_slice_beyond() -> None:
    pixels = Grid((48, 48, 6), (2.0, 2.0, 8.0), (0.0, 0.0, 0.0), IDENTITY)
    fine = Grid((48, 48, 24), (2.0, 2.0, 2.0), (0.0, 0.0, -3.0), IDENTITY)
    radii = (10.0, 14.0, 10.0)
    region = Region(2, [disc(24, 24, radius) for radius in radii])
    mask = fill(region, pixels, pixels.index_of(fine))
    heights = fine.to_physical(np.argwhere(mask.numpy())[:, ::-1])[:, 2]
    assert (heights.min(), heights.max()) == (13.0, 35.0)  # slices at 16, 24, 32 mm, 8 mm thick
    areas = mask.flatten(1).sum(dim=1)
    at_19_mm = areas[(19 + 3) // 2].item()  # a radius of 11.5
    assert at_19_mm == pytest.approx(np.pi * 11.5**2, rel=0.1)


def test_pairs_are_the_best_assignment_above_the_threshold_and_within_reach() -> None:
    def regions(angles: list[float], places: list[float]) -> list[Region]:
        found = []
        for angle, place in zip(angles, places, strict=True):
            direction = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
            found.append(Region(0, [], 3 * direction, np.array([place, 0, 0])))
        return found

    # The most similar two (0 and 0) would leave the others without anything.
    fixed, moving = regions([0.0, 0.7], [0, 0]), regions([0.1, -0.3], [0, 50])
    pairs = pair_regions(fixed, moving, 0.7, 0)
    assert [(i, j) for i, j, _ in pairs] == [(0, 1), (1, 0)]
    assert pairs[0][2] == pytest.approx(np.cos(0.3), abs=1e-6)
    near = pair_regions(fixed, moving, 0.7, 40)
    assert [(i, j) for i, j, _ in near] == [(0, 0)]
    assert pair_regions(fixed, moving, 0.999, 0) == []


def test_numbers_without_a_partner_leave_both_label_maps() -> None:
    grid = Grid((4, 4, 4), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), IDENTITY)
    fixed, moving = np.zeros((2, 4, 4, 4), np.int16)
    fixed[0, 0, :3] = (1, 2, 3)
    moving[3, 3, :2] = (3, 1)
    pairs = RegionPairs.measured(Volume(fixed, grid), Volume(moving, grid), [0.9, 0.8, 0.7])
    assert [(row.number, row.similarity) for row in pairs.table] == [(1, 0.9), (2, 0.7)]
    assert pairs.fixed.array[0, 0].tolist() == [1, 0, 2, 0]
    assert pairs.moving.array[3, 3].tolist() == [2, 1, 0, 0]
    assert pairs.table[1].moving_center == (0.0, 6.0, 6.0)
    assert pairs.table[1].fixed_ml == pytest.approx(0.008)


def test_small_regions_lie_on_top_of_large_ones() -> None:
    labels = label_map(torch.stack([ball((24, 24, 24), 5), ball((24, 24, 24), 12)]))
    assert labels[24, 24, 24] == 1 and labels[24, 24, 33] == 2 and labels[0, 0, 0] == 0


def test_the_dense_field_lays_the_regions_on_each_other() -> None:
    places = [(9, 10, 9), (22, 20, 8), (12, 24, 21)]
    shift = (3, -2, 4)
    fixed = torch.stack([ball(place, 5, side=32) for place in places]).float()
    moved = [tuple(a + b for a, b in zip(place, shift, strict=True)) for place in places]
    moving = torch.stack([ball(place, 5, side=32) for place in moved]).float()
    found = field_from_regions(fixed, moving, (2, 1), 50, 0.2, 0.1, Progress(), 0.0)
    for k, mask in enumerate(fixed > 0):
        inside = found[:, mask].mean(dim=1)
        torch.testing.assert_close(inside, torch.tensor(shift[::-1]).float(), atol=0.7, rtol=0)
        warped = warp(moving[k : k + 1], resize_displacement(found, mask.shape))[0] > 0.5
        assert 2 * (warped & mask).sum() / (warped.sum() + mask.sum()) > 0.9


# --- on real CT -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for the features of this module alone: nothing is encoded twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIDEREG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def real_weights(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(shared_data / "weights"))


@pytest.fixture(scope="module")
def known_pair(shared_data: Path) -> tuple[Volume, Volume, sitk.Transform]:
    """32 mm of LIDC-IDRI-0001 at the heart, the fixed one warped by a known smooth motion in plane
    (semi-synthetic), and that motion, fixed to moving."""
    folder = shared_data / "thorax_lidc0001"
    whole = read_volume(folder / "LIDC-IDRI-0001_ct.nii.gz")
    moving = whole.resampled(whole.grid.padded((0, 0, -72), (0, 0, -78)))
    center = moving.grid.center
    points = moving.grid.to_physical(np.indices(moving.grid.shape)[::-1].reshape(3, -1).T)
    x, y = ((points[:, k] - center[k]) / 60 for k in (0, 1))
    shape = moving.grid.shape
    vectors = np.zeros((*shape, 3))
    vectors[..., 0] = (8 * np.sin(y) + 3).reshape(shape)
    vectors[..., 1] = (8 * np.cos(x)).reshape(shape)
    image = sitk.GetImageFromArray(vectors, isVector=True)
    truth = sitk.DisplacementFieldTransform(moving.grid.copy_to_sitk(image))
    fixed = moving.resampled(moving.grid, truth, -1024)
    noise = np.random.default_rng(3).normal(0, 20, shape).astype(np.float32)
    return Volume(fixed.array + noise, moving.grid), moving, truth


def test_pairs_hit_the_same_anatomy(
    known_pair: tuple[Volume, Volume, sitk.Transform],
    shared_data: Path,
    tmp_path: Path,
    real_weights: None,
) -> None:
    fixed, moving, truth = known_pair
    settings = with_changes(
        Settings.preset("fast"),
        initial="none",
        features={"encoder": "lite_medsam"},
        grid={"margin_mm": 0.5},
    )
    options = {"slice_mm": 16.0, "box_mm": [60.0, 110.0], "rounds": 0, "iterations": 40}
    settings = with_changes(settings, method="samreg", method_options=options)
    result = find("samreg").register(fixed, moving, settings)
    pairs = result.regions
    assert len(pairs.table) >= 6
    carried = pairs.moving.resampled(fixed.grid, truth, labels=True).array
    before = pairs.moving.array
    found = {"true": [], "as they are": []}
    for row in pairs.table:
        own = pairs.fixed.array == row.number
        for name, other in (("true", carried), ("as they are", before)):
            both = own & (other == row.number)
            total = own.sum() + (other == row.number).sum()
            found[name].append(2 * both.sum() / total)
    assert np.median(found["true"]) > 0.85
    assert np.mean(found["true"]) > np.mean(found["as they are"])
    _check_structures(pairs, fixed, moving, truth, shared_data)
    _check_files(result, moving, tmp_path)


def _check_structures(
    pairs: RegionPairs, fixed: Volume, moving: Volume, truth: sitk.Transform, shared_data: Path
) -> None:
    """Most pairs hold the same structure of the 118 labels; no label is no structure."""
    labels = read_labels(shared_data / "thorax_lidc0001" / "LIDC-IDRI-0001_seg118.nii.gz")
    maps = (
        (pairs.fixed.array, labels.resampled(fixed.grid, truth, labels=True).array),
        (pairs.moving.array, labels.resampled(moving.grid, labels=True).array),
    )
    found = [
        tuple(commonest(names[regions == row.number]) for regions, names in maps)
        for row in pairs.table
    ]
    labeled = [labels for labels in found if any(labels)]
    same = [first for first, second in labeled if first == second]
    assert len(set(same)) >= 3 and len(same) >= 0.8 * len(labeled)


def _check_files(result, moving: Volume, folder: Path) -> None:
    result.save(folder / "out", moving)
    kept = read_labels(folder / "out" / "regions_moving.nii.gz")
    np.testing.assert_array_equal(kept.array, result.regions.moving.array)
    assert kept.grid.is_close(moving.grid)
    with (folder / "out" / "regions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["region"]) for row in rows] == [row.number for row in result.regions.table]
    assert len(result.report["regions"]["pairs"]) == len(rows)


def test_what_bears_no_label_is_no_structure_that_was_hit() -> None:
    assert commonest(np.array([0, 0, 5])) == 0 and commonest(np.array([5, 5, 0])) == 5
    labels = [(0, 0), (0, 0), (0, 4), (5, 5), (5, 5), (5, 6)]
    pairs = [PairedRegion(0.1 * k, 0.5, two) for k, two in enumerate(labels)]
    assert hits(pairs) == "50 % of 4"
    assert hits(pairs[:2]) == "none labeled"
    lines = pair_table(pairs, {4: "heart", 5: "aorta", 6: "liver"})
    assert lines[2:4] == [
        "| (no label) | (no label) | 2 | 0.05 | 0.50 |",
        "| (no label) | heart | 1 | 0.20 | 0.50 |",
    ]
    assert "| aorta | aorta | 2 | 0.35 | 0.50 |" in lines


def test_a_point_grid_finds_what_a_decoder_of_points_shows() -> None:
    """With a decoder that answers each point by the thing it lies in: three shifts of a disc."""

    class Oracle:
        prompts = "points"

        @staticmethod
        def decoder(embedding, points, chosen):
            inside = disc(24, 24, 10)
            hit = inside[(points[:, 1] * 48).long(), (points[:, 0] * 48).long()]
            logits = torch.where(inside, 5.0, -5.0)[None].repeat(len(points), 1, 1)
            logits[~hit] = -5.0
            quality = torch.where(hit, 0.95, 0.2)
            return logits[:, None], quality[:, None]

    rules = ProposalRules(0.9, 0.9, (10.0, 1e4), 0.8, 12, (40.0,), 2)
    found = propose(Oracle, torch.zeros(256, 12, 12), torch.ones(48, 48, dtype=bool), 1.0, rules)
    assert len(found) == 1 and torch.equal(found[0], disc(24, 24, 10))
    nothing = propose(Oracle, torch.zeros(256, 12, 12), disc(4, 4, 3), 1.0, rules)
    assert len(nothing) == 0


def test_it_can_be_cancelled_while_it_segments(known_pair: tuple, real_weights: None) -> None:
    fixed, moving, _ = known_pair
    seen: list[str] = []
    progress = Progress(lambda e: seen.append(e.stage), lambda: seen.count("refine") > 2)
    settings = with_changes(
        Settings.preset("fast"),
        initial="none",
        features={"encoder": "lite_medsam"},
        grid={"margin_mm": 0.5},
        method="samreg",
        method_options={"slice_mm": 16.0},
    )
    with pytest.raises(Cancelled):
        find("samreg").register(fixed, moving, settings, progress)
    assert seen.count("refine") == 3 and "measure" not in seen


def test_what_cannot_be_run_is_a_sentence(known_pair: tuple, real_weights: None) -> None:
    fixed, moving, _ = known_pair
    base = with_changes(
        Settings.preset("fast"), initial="none", method="samreg", grid={"margin_mm": 0.5}
    )
    with pytest.raises(SettingsError, match="has no mask decoder here"):
        other = with_changes(base, features={"encoder": "sam2.1_hiera_tiny"})
        find("samreg").register(fixed, moving, other)
    problems = find("samreg").problems({"poolings": [2, 4], "box_mm": [1.0]})
    assert len(problems) == 2
    with pytest.raises(MethodError, match="found 0 regions in the fixed and 0 in the moving"):
        options = {"slice_mm": 16.0, "box_mm": [400.0], "rounds": 0, "area_mm2": [0.1, 0.2]}
        none = with_changes(base, features={"encoder": "lite_medsam"}, method_options=options)
        find("samreg").register(fixed, moving, none)
