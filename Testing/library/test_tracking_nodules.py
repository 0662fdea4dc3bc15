"""Nodules from files: points, label maps, segmentations, an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from GlideRegLib.errors import InputError
from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import write_landmarks
from GlideRegLib.tracking.files import write_tracking
from GlideRegLib.tracking.measures import Measurement
from GlideRegLib.tracking.nodules import nodules_from_labels, read_nodules, unique_names
from GlideRegLib.tracking.records import Tracking, TrackRow
from GlideRegLib.volume import Volume, write_volume

GRID = Grid((20, 24, 16), (0.8, 0.8, 2.0), (5.0, -7.0, 30.0), (0, 1, 0, -1, 0, 0, 0, 0, 1))


def label_map(*boxes: tuple[int, slice, slice, slice]) -> Volume:
    array = np.zeros(GRID.shape, np.uint8)
    for value, z, y, x in boxes:
        array[z, y, x] = value
    return Volume(array, GRID)


def center_of(z: slice, y: slice, x: slice) -> np.ndarray:
    index = [[(s.start + s.stop - 1) / 2 for s in (x, y, z)]]
    return GRID.to_physical(np.array(index))[0]


FIRST = (slice(2, 5), slice(3, 8), slice(4, 7))
SECOND = (slice(10, 12), slice(15, 19), slice(9, 15))


def test_points_keep_their_names_and_get_identities_of_their_own(tmp_path: Path) -> None:
    points = np.array([[1.0, 2, 3], [4, 5, 6]])
    write_landmarks(tmp_path / "n.mrk.json", points, ["upper", "lower"])
    found = read_nodules(tmp_path / "n.mrk.json").nodules
    assert [n.name for n in found] == ["upper", "lower"]
    assert np.allclose([n.center for n in found], points)
    assert len({n.identifier for n in found}) == 2
    assert all(n.mask is None for n in found)


def test_points_in_ras_become_lps(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("x_ras,y_ras,z_ras,label\n1,2,3,a\n", "utf-8")
    assert read_nodules(tmp_path / "n.csv").nodules[0].center == (-1.0, -2.0, 3.0)


def test_each_value_of_a_label_map_is_a_nodule(tmp_path: Path) -> None:
    write_volume(tmp_path / "labels.nii.gz", label_map((3, *FIRST), (7, *SECOND)))
    found = read_nodules(tmp_path / "labels.nii.gz")
    assert [n.name for n in found.nodules] == ["label 3", "label 7"]
    for nodule, box in zip(found.nodules, (FIRST, SECOND), strict=True):
        assert np.allclose(nodule.center, center_of(*box), atol=1e-4)
        assert nodule.mask.array.sum() == np.prod([s.stop - s.start for s in box])
    assert not found.notes


def test_a_value_in_two_parts_stays_one_nodule_when_there_are_others() -> None:
    part = (slice(14, 16), slice(0, 3), slice(0, 3))
    found = nodules_from_labels(label_map((1, *FIRST), (2, *SECOND), (2, *part)))
    assert len(found) == 2
    assert found.nodules[1].mask.array.sum() == 48 + 18


def test_a_map_of_one_value_is_split_into_its_parts_and_says_so() -> None:
    speck = (slice(15, 16), slice(0, 1), slice(19, 20))
    found = nodules_from_labels(label_map((4, *FIRST), (4, *SECOND), (4, *speck)))
    assert [n.name for n in found.nodules] == ["nodule 1", "nodule 2"]
    assert np.allclose(found.nodules[1].center, center_of(*SECOND), atol=1e-4)
    assert "connected parts" in found.notes[0]
    assert found.notes[1].startswith("1 specks")


def test_the_mask_lies_on_the_voxels_of_the_map_it_came_from() -> None:
    labels = label_map((1, *FIRST), (2, *SECOND))
    mask = nodules_from_labels(labels).nodules[1].mask
    index = np.argwhere(mask.array)[:, ::-1]
    back = labels.grid.to_index(mask.grid.to_physical(index))
    z, y, x = np.rint(back).astype(int)[:, ::-1].T
    assert np.abs(back - np.rint(back)).max() < 1e-6
    assert (labels.array[z, y, x] == 2).all()


def test_names_of_a_slicer_segmentation_are_kept(tmp_path: Path) -> None:
    image = label_map((1, *FIRST), (2, *SECOND)).to_sitk()
    for number, (value, name) in enumerate(((2, "lingula"), (1, "apex"))):
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "s.seg.nrrd"))
    assert [n.name for n in read_nodules(tmp_path / "s.seg.nrrd").nodules] == ["apex", "lingula"]


def test_an_earlier_run_hands_on_what_it_knows(tmp_path: Path) -> None:
    """Places, identities, errors and measures; who is not there now may come back."""
    size = Measurement(300.0, 9.0, 8.0, 8.5, 8.3, 20.0, 306.0, 150, (1.0, 2.0, 3.0), 1.0)
    place = {"predicted_position": (4.0, 5.0, 6.0), "uncertainty_mm": 2.5}
    marked = {"fixed_center": (1.0, 2.0, 3.0), "uncertainty_mm": 1.5}
    measured = {"fixed_measurement": size, "fixed_method": "segmented"}
    rows = (
        TrackRow("id-a", "a", "matched", **marked, **measured),
        TrackRow("id-b", "b", "resolved", **place, decision="confirmed"),
        TrackRow("id-c", "c", "predicted", **place),
        TrackRow("id-d", "d", "predicted", **place, **measured),
        TrackRow("id-e", "e", "predicted", **place, decision="confirmed"),
        TrackRow("id-f", "f", "outside field of view", **place),
        TrackRow("id-g", "g", "new", fixed_center=(0.0, 0.0, 0.0), decision="rejected"),
    )
    write_tracking(tmp_path / "nodules.json", Tracking(rows))
    found = {n.identifier: n for n in read_nodules(tmp_path / "nodules.json").nodules}
    located = {key: nodule.located for key, nodule in found.items()}
    assert located == {
        "id-a": True,
        "id-b": False,
        "id-c": False,
        "id-d": True,
        "id-e": True,
        "id-f": False,
    }
    assert found["id-a"].center == (1.0, 2.0, 3.0)
    assert [found[f"id-{k}"].uncertainty_mm for k in "abcde"] == [0.0, 2.5, 2.5, 0.0, 0.0]
    assert (found["id-a"].measurement, found["id-a"].method) == (size, "segmented")
    assert found["id-b"].measurement is None


def test_equal_names_are_told_apart() -> None:
    found = nodules_from_labels(label_map((1, *FIRST), (2, *SECOND)), {1: "n", 2: "n"})
    assert [n.name for n in unique_names(found.nodules)] == ["n", "n (2)"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", None, "does not exist"),
        ("points.txt", "", "is empty"),
        ("other.json", json.dumps({"schema": "something"}), "no 3D Slicer markups"),
        ("old.json", json.dumps({"schema": "glidereg-nodules-0"}), "no list of nodules"),
        ("bad.json", json.dumps({"schema": "glidereg-nodules-1", "rows": [{}]}), "damaged"),
        ("labels.nii.gz", "no image", "labels.nii.gz"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(InputError, match=said):
        read_nodules(tmp_path / name)


def test_an_empty_label_map_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        nodules_from_labels(label_map())
