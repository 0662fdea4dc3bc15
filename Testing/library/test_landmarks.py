"""Landmark files: frames, round trips, the real files, and one clear sentence per bad file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from GlideRegLib.errors import InputError, OutputError
from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import read_landmark_pair, read_landmarks, write_landmarks

POINTS = np.array([[1.25, -2.5, 3.0], [-40.123456789012, 1e-7, -1204.5], [0.1, 0.2, 0.3]])
RAS = POINTS * [-1, -1, 1]


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def rows(points: np.ndarray, separator: str = ",") -> str:
    return "".join(separator.join(repr(float(v)) for v in p) + "\n" for p in points)


def markups(points: np.ndarray, **fields: object) -> str:
    control = [{"label": f"F-{k}", "position": list(map(float, p))} for k, p in enumerate(points)]
    return json.dumps({"markups": [{"type": "Fiducial", "controlPoints": control, **fields}]})


# --- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.mrk.json", "p.fcsv", "p.csv", "p.txt", "p.pts"])
def test_round_trip_is_exact(tmp_path: Path, name: str) -> None:
    labels = ["tip", 'a "quoted", label', "Ä-3"]
    write_landmarks(tmp_path / name, POINTS, labels)
    back = read_landmarks(tmp_path / name)
    assert np.array_equal(back.points, POINTS)
    assert back.labels == (["1", "2", "3"] if name.endswith(("txt", "pts")) else labels)
    assert back.notes == []  # what we write states its frame
    assert os.listdir(tmp_path) == [name]


def test_markups_follow_slicers_schema(tmp_path: Path) -> None:
    write_landmarks(tmp_path / "p.mrk.json", POINTS)
    content = json.loads((tmp_path / "p.mrk.json").read_text(encoding="utf-8"))
    assert content["@schema"].endswith("Markups/Resources/Schema/markups-schema-v1.0.3.json#")
    markup = content["markups"][0]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == (
        "Fiducial",
        "LPS",
        "mm",
    )
    for number, point in enumerate(markup["controlPoints"]):
        assert point["position"] == POINTS[number].tolist()
        assert len(point["orientation"]) == 9
        assert point["positionStatus"] == "defined"


def test_elastix_points_are_what_elastix_reads(tmp_path: Path) -> None:
    write_landmarks(tmp_path / "p.txt", POINTS)
    lines = (tmp_path / "p.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["point", "3"]
    assert [float(v) for v in lines[3].split()] == POINTS[1].tolist()


# --- frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.mrk.json", markups(POINTS)),  # Slicer's default is LPS
        ("p.mrk.json", markups(RAS, coordinateSystem="RAS")),
        ("p.mrk.json", markups(RAS, coordinateSystem="0")),
        ("p.json", markups(POINTS * 1000, coordinateUnits="um")),
        ("p.mrk.json", markups(POINTS, coordinateUnits=["mm", "UCUM", "millimeter"])),
        ("p.fcsv", "# CoordinateSystem = LPS\n" + rows(np.c_[[0, 1, 2], POINTS])),
        ("p.fcsv", "# CoordinateSystem = RAS\n" + rows(np.c_[[0, 1, 2], RAS])),
        ("p.fcsv", "# CoordinateSystem = 0\n" + rows(np.c_[[0, 1, 2], RAS])),
        ("p.fcsv", "# CoordinateSystem = 1\n" + rows(np.c_[[0, 1, 2], POINTS])),
        ("p.fcsv", "# Markups fiducial file version = 4.3\n" + rows(np.c_[[0, 1, 2], RAS])),
        ("p.csv", "x_lps,y_lps,z_lps\n" + rows(POINTS)),
        ("p.csv", "\ufeffX_RAS, Y_RAS, Z_RAS\r\n" + rows(RAS).replace("\n", "\r\n")),
        ("p.csv", "label,r,a,s\n" + "".join("F," + row + "\n" for row in rows(RAS).split())),
        ("p.csv", "z_lps,y_lps,x_lps\n" + rows(POINTS[:, ::-1])),
        ("p.csv", "x,y,z (mm, image physical frame)\n" + rows(POINTS)),
        ("p.csv", "x_lps,y_lps,z_lps (mm, frame of a.nii.gz; row 41 not scored)\n" + rows(POINTS)),
        ("p.csv", rows(POINTS) + "\n"),
        ("p.txt", rows(POINTS, "  ")),
        ("p.txt", "# a comment\n" + rows(POINTS, "\t")),
        ("p.pts", "point\n3\n" + rows(POINTS, " ")),
    ],
)
def test_stated_frames_are_honored(tmp_path: Path, name: str, text: str) -> None:
    found = read_landmarks(put(tmp_path, name, text))
    assert np.abs(found.points - POINTS).max() < 1e-9
    assert found.points.dtype == np.float64 and len(found.labels) == 3


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("p.csv", rows(POINTS), "LPS"),
        ("p.csv", "x,y,z (mm, image physical frame)\n" + rows(POINTS), "image physical frame"),
        ("p.txt", rows(POINTS, " "), "LPS"),
        ("p.fcsv", rows(np.c_[[0, 1, 2], RAS]), "RAS"),
    ],
)
def test_guesses_are_noted(tmp_path: Path, name: str, text: str, word: str) -> None:
    notes = read_landmarks(put(tmp_path, name, text)).notes
    assert notes and any(word in note for note in notes)


def test_labels_are_kept(tmp_path: Path) -> None:
    assert read_landmarks(put(tmp_path, "a.csv", "1,2,3,carina\n4,5,6,\n")).labels == [
        "carina",
        "2",
    ]
    slicer = "label,r,a,s,defined,selected,visible,locked,description\nF-1,1,2,3,1,1,1,0,\n"
    exported = read_landmarks(put(tmp_path, "b.csv", slicer))
    assert exported.labels == ["F-1"] and exported.points.tolist() == [[-1, -2, 3]]
    fcsv = "# CoordinateSystem = LPS\nid_1,1,2,3,0,0,0,1,1,1,0,carina,,\n"
    assert read_landmarks(put(tmp_path, "c.fcsv", fcsv)).labels == ["carina"]


def test_elastix_indices_need_their_image(tmp_path: Path) -> None:
    path = put(tmp_path, "p.txt", "index\n2\n0 0 0\n1 2 3\n")
    with pytest.raises(InputError, match="image"):
        read_landmarks(path)
    # x points backwards, y to the left: an axis swap shows.
    grid = Grid((9, 9, 9), (2.0, 3.0, 4.0), (10.0, 20.0, 30.0), (0, 1, 0, 1, 0, 0, 0, 0, 1))
    points = read_landmarks(path, grid).points
    assert points.tolist() == [[10, 20, 30], [16, 22, 42]]


# --- real files -------------------------------------------------------------------------------


def test_real_pairs_read(shared_data: Path) -> None:
    folder = shared_data / "lung_followup"
    fixed, moving = read_landmark_pair(
        folder / "baseline_points51.txt", folder / "followup_points51.txt"
    )
    assert len(fixed) == len(moving) == 51
    assert np.linalg.norm(fixed.points - moving.points, axis=1).mean() == pytest.approx(
        35.3, abs=0.1
    )
    subject = shared_data / "liver_mr_breathing" / "subject23"
    fixed, moving = read_landmark_pair(
        subject / "exhMaster_landmarks_liver.csv", subject / "cyc_1_4_landmarks_liver.csv"
    )
    assert len(fixed) == 32
    assert np.linalg.norm(fixed.points - moving.points, axis=1).mean() < 15
    popi = shared_data / "thorax_popi00"
    fixed, moving = read_landmark_pair(popi / "50_lps_mm.csv", popi / "00_lps_mm.csv")
    motion = np.linalg.norm(fixed.points - moving.points, axis=1)[:40]
    assert (motion.mean(), motion.max()) == pytest.approx((5.6, 12.0), abs=0.1)
    assert any("row 41" in note for note in fixed.notes)


# --- bad files --------------------------------------------------------------------------------

BAD = {
    "empty file": ("a.csv", "  \n", "empty"),
    "header only": ("a.csv", "x_lps,y_lps,z_lps\n", "no points"),
    "unknown format": ("a.vtk", "1 2 3\n", "format"),
    "unknown header": ("a.csv", "foo,bar,baz\n1,2,3\n", "header"),
    "two columns": ("a.csv", "1,2,3\n4,5\n", "Line 2"),
    "seven columns": ("a.csv", "1,2,3,4,5,6,7\n", "Line 1"),
    "words": ("a.csv", "x_lps,y_lps,z_lps\n1,2,3\n4,five,6\n", "line 3"),
    "NaN": ("a.csv", "1,2,3\nnan,2,3\n", "line 2"),
    "infinite": ("a.txt", "1 2 3\n1 2 inf\n", "line 2"),
    "four columns of text": ("a.txt", "1 2 3 4\n", "line 1"),
    "elastix without a count": ("a.txt", "point\n1 2 3\n", "Line 2"),
    "elastix, wrong count": ("a.txt", "point\n3\n1 2 3\n", "announces 3"),
    "elastix, malformed": ("a.pts", "point\n1\n1 2\n", "line 3"),
    "broken JSON": ("a.mrk.json", '{"markups": [', "JSON"),
    "JSON of something else": ("a.json", '{"a": 1}', "markups"),
    "JSON list": ("a.json", "[1, 2]", "markups"),
    "no control points": ("a.mrk.json", markups(POINTS[:0]), "no points"),
    "unknown frame": ("a.mrk.json", markups(POINTS, coordinateSystem="IJK"), "IJK"),
    "unknown unit": ("a.mrk.json", markups(POINTS, coordinateUnits="inch"), "inch"),
    "position missing": (
        "a.mrk.json",
        '{"markups": [{"controlPoints": [{"label": "F"}]}]}',
        "no position",
    ),
    "position undefined": (
        "a.mrk.json",
        '{"markups": [{"controlPoints": [{"position": [0, 0, 0], "positionStatus": "preview"}]}]}',
        "no position",
    ),
    "position of two numbers": (
        "a.mrk.json",
        '{"markups": [{"controlPoints": [{"position": [0, 0]}]}]}',
        "control point 1",
    ),
    "control point is no object": (
        "a.mrk.json",
        '{"markups": [{"controlPoints": [3]}]}',
        "no position",
    ),
    "fcsv with too few columns": ("a.fcsv", "# CoordinateSystem = RAS\n1,2\n", "Line 2"),
    "fcsv with words": ("a.fcsv", "id,x,y,z\n", "line 1"),
    "fcsv in voxels": ("a.fcsv", "# CoordinateSystem = 2\n1,2,3,4\n", "frame"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_gives_one_sentence(tmp_path: Path, case: str) -> None:
    name, text, word = BAD[case]
    with pytest.raises(InputError) as caught:
        read_landmarks(put(tmp_path, name, text))
    sentence = str(caught.value)
    assert word in sentence and name in sentence and "\n" not in sentence


def test_missing_binary_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_landmarks(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="does not exist"):
        read_landmarks(tmp_path)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="text"):
        read_landmarks(tmp_path / "b.csv")


def test_counts_that_differ(tmp_path: Path) -> None:
    first, second = (put(tmp_path, f"{n}.csv", rows(POINTS[:n])) for n in (2, 3))
    with pytest.raises(InputError, match=r"2 landmarks but .* holds 3"):
        read_landmark_pair(first, second)


def test_bad_writes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels"):
        write_landmarks(tmp_path / "a.csv", POINTS, ["one"])
    with pytest.raises(InputError, match="finite"):
        write_landmarks(tmp_path / "a.csv", np.full((2, 3), np.nan))
    with pytest.raises(OutputError, match="cannot be written"):
        write_landmarks(tmp_path / "a.vtk", POINTS)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_landmarks(tmp_path / "folder.csv", POINTS)
    assert os.listdir(tmp_path) == ["folder.csv"]
