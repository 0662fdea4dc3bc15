"""What a reader sees of a tracking: numbers at their limits, reserve, notes, who was the prior."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from nodule_scene import STAYS, Translation, scene, write_small_pair

from GlideRegLib.cli import main
from GlideRegLib.report.nodules import nodule_page, nodule_section
from GlideRegLib.tracking.files import _number, read_tracking, tracking_csv
from GlideRegLib.tracking.growth import growth
from GlideRegLib.tracking.measures import Measurement
from GlideRegLib.tracking.nodules import Nodule
from GlideRegLib.tracking.records import Tracking, TrackRow
from GlideRegLib.tracking.track import MeasureSettings, TrackSettings, track


def size(volume: float) -> Measurement:
    """A ball, larger than 6 mm, in thin slices."""
    diameter = float(np.cbrt(6 * volume / np.pi))
    return Measurement(volume, *[diameter] * 4, 20.0, volume, 100, (0.0, 0.0, 0.0), 1.0)


def grown(ratio: float, days: float | None = 200.0, thresholds: bool = False) -> TrackRow:
    change = growth(size(500.0), size(500.0 * ratio), days, thresholds)
    measures = {"moving_measurement": size(500.0), "fixed_measurement": size(500.0 * ratio)}
    return TrackRow("id", "n", "matched", **measures, growth=change)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.249, "+24.9"),
        (1.2499, "+24.9"),
        (1.25, "+25"),
        (1.244, "+24"),
        (1.7, "+70"),
        (0.999, "+0"),
        (0.7, "-30"),
    ],
)
def test_a_change_below_the_limit_does_not_read_like_the_limit(ratio: float, said: str) -> None:
    row = grown(ratio)
    assert row.growth.volume_change_text == said
    assert nodule_section(Tracking((row,)), [])["rows"][0]["change"] == f"{said} %"
    reasons = " ".join(row.growth.greyed)
    assert (f"change of {said} % is below" in reasons) == (ratio < 1.25)


def test_a_reason_of_one_threshold_is_not_one_of_the_others() -> None:
    flags = nodule_section(Tracking((grown(3.0, 400.0, True),)), [])["flags"][0]
    assert [cell["text"] for cell in flags["cells"]] == ["reached", "reached", "does not apply"]
    assert [cell["greyed"] for cell in flags["cells"]] == [False, False, True]
    assert flags["greyed"].startswith("Lung-RADS v2022: the scans are 400 days apart")
    small = nodule_section(Tracking((grown(1.1, 400.0, True),)), [])["flags"][0]
    assert [cell["greyed"] for cell in small["cells"]] == [True] * 3
    assert small["greyed"].startswith("a volume change of +10 % is below +25 %; Lung-RADS")
    page = nodule_page(nodule_section(Tracking((grown(3.0, 400.0, True),)), []))
    assert page.count('class="reserve">does not apply') == 1
    assert 'class="reserve">reached' not in page


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(-0.0005, 4, "-0.0005"), (-0.0004, 3, "0.000"), (-1.0, 3, "-1.000"), (-10.0004, 3, "-10.000")],
)
def test_numbers_of_the_csv_keep_their_sign(value: float, digits: int, said: str) -> None:
    assert _number(value, digits) == said


def test_never_and_not_known_are_told_apart_in_the_csv() -> None:
    def cells(row: TrackRow) -> list[str]:
        found = next(csv.DictReader(io.StringIO(tracking_csv(Tracking((row,))))))
        ends = ("shortest", "longest")
        return [found[f"volume_doubling_time_{end}_days"] for end in ends]

    assert cells(grown(1.3)) == ["179.295", "never"]
    assert cells(grown(0.5)) == ["never", "never"]
    assert cells(grown(1.3, days=None)) == ["", ""]
    assert cells(TrackRow("id", "n", "resolved")) == ["", ""]
    assert cells(grown(2.0))[1] == "760.357"


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that wraps nothing."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_small_pair(tmp_path_factory.mktemp("small"))


def printed(
    capsys: pytest.CaptureFixture, small: dict, output: Path, *options: str, swapped: bool = False
) -> str:
    images = [str(small[name]) for name in ("fixed", "moving")]
    arguments = ["track", *(images[::-1] if swapped else images), "-o", str(output)]
    arguments += ["--moving-nodules", str(small["before"]), "--fixed-nodules", str(small["now"])]
    assert main([*arguments, "--transform", str(small["shift"]), *options]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("prior", ["moving", "fixed"])
def test_the_json_says_whose_frame_is_whose(
    capsys: pytest.CaptureFixture, small: dict, tmp_path: Path, prior: str
) -> None:
    printed(capsys, small, tmp_path, "--prior", prior)
    found = read_tracking(tmp_path / "nodules.json")
    data = found.to_dict()
    assert data["roles"] == {"moving": "prior", "fixed": "current"}
    assert data["registration"] == {"prior": prior}
    assert found.registration_prior == prior


def test_notes_remarks_and_doubling_times_are_printed(
    capsys: pytest.CaptureFixture, small: dict, tmp_path: Path
) -> None:
    shown = printed(capsys, small, tmp_path, "--segment", "--days", "90")
    assert "doubling, days" in shown
    row = read_tracking(tmp_path / "nodules.json").rows[0]
    assert f"{row.growth.volume_change_text} " in shown
    assert "The error of this transform is not known" in shown


def test_nothing_measured_is_said(
    capsys: pytest.CaptureFixture, small: dict, tmp_path: Path
) -> None:
    shown = printed(capsys, small, tmp_path, "--segment", swapped=True)
    assert "No nodule could be measured" in shown
    assert "a: Prior: " in shown
    assert "No nodule could be measured" in (tmp_path / "report.html").read_text("utf-8")


def test_it_is_not_said_where_nothing_was_to_be_measured() -> None:
    images = [scene({STAYS: 4.0}, np.zeros(3))] * 2
    nodules = [Nodule("a", STAYS)], [Nodule("b", STAYS)]
    still = Translation(shift=np.zeros(3))
    assert not any("measured" in note for note in track(still, *images, *nodules).notes)
    wanted = TrackSettings(measure=MeasureSettings(segment=True))
    assert not any("measured" in n for n in track(still, *images, *nodules, wanted).notes)


def test_an_empty_list_of_the_current_scan_points_to_the_word_none(
    capsys: pytest.CaptureFixture, small: dict, tmp_path: Path
) -> None:
    (tmp_path / "empty.csv").write_text("x,y,z\n", "utf-8")
    images = [str(small[name]) for name in ("fixed", "moving")]
    arguments = ["track", *images, "-o", str(tmp_path / "out"), "--transform", str(small["shift"])]
    arguments += ["--moving-nodules", str(small["before"])]
    assert main([*arguments, "--fixed-nodules", str(tmp_path / "empty.csv")]) == 2
    assert "the word none" in " ".join(capsys.readouterr().err.split())
