"""``glidereg track``: the nodules of the prior scan, found again in the current one."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

import typer
from rich.console import Console

from .cli_options import Device, Preset, cancel_wish, settings_from
from .console import LiveProgress, print_nodules
from .errors import InputError

_NODULES = "Landmark file, label map, or nodules.json of an earlier run"


def track(
    fixed: Annotated[str, typer.Argument(help="Fixed image: the current scan (see --prior).")],
    moving: Annotated[str, typer.Argument(help="Moving image: the prior scan (see --prior).")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    moving_nodules: Annotated[
        str | None, typer.Option(metavar="FILE", help=f"{_NODULES} (moving image).")
    ] = None,
    fixed_nodules: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The same in the fixed image, or the word none: it holds none. "
            "Without: no matching.",
        ),
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Any ITK transform or displacement field, fixed to moving, LPS mm; "
            "without: the images are registered first.",
        ),
    ] = None,
    uncertainty: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Its expected error in mm: uncertainty.nii.gz."),
    ] = None,
    prior: Annotated[
        Literal["moving", "fixed"], typer.Option(help="Which image is the earlier scan.")
    ] = "moving",
    segment: Annotated[
        bool, typer.Option("--segment", help="Segment nodules that are points, to measure them.")
    ] = False,
    maximum_diameter: Annotated[
        float, typer.Option(help="Largest nodule that is segmented, mm.")
    ] = 40.0,
    days: Annotated[float | None, typer.Option(help="Days from the prior to the current scan.")] = (
        None
    ),
    dates: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="PRIOR CURRENT",
            help="Or both dates, as 2024-03-31 2024-09-30. "
            "Without: by the headers of DICOM folders.",
        ),
    ] = None,
    refine: Annotated[bool, typer.Option(help="Correct predictions on the native images.")] = True,
    matched_mm: Annotated[float, typer.Option(help="Farthest pair that is 'matched', mm.")] = 2.0,
    review_mm: Annotated[float, typer.Option(help="Farthest pair for 'review', mm.")] = 5.0,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="True places in the current image, row by row: CPM and TRE are measured.",
        ),
    ] = None,
    reference_thresholds: Annotated[
        bool,
        typer.Option("--reference-thresholds", help="Also say which published changes are met."),
    ] = False,
    preset: Annotated[Preset, typer.Option(help="Preset of the registration.")] = "standard",
    encoder: Annotated[str, typer.Option(help="Encoder of the registration, or none.")] = "auto",
    settings: Annotated[
        str | None, typer.Option(help="JSON file with settings of the registration.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads, 0 for all.")] = 0,
) -> None:
    """Follow nodules from the prior to the current scan: nodules.csv, nodules.json, pictures and
    report.html. Registration proposes, a clinician confirms."""
    from .tracking.job import TrackJob, run_track_job
    from .tracking.track import Gates, MeasureSettings, RefineSettings, TrackSettings

    gates = Gates(matched_mm, review_mm, ambiguous_mm=review_mm)
    measure = MeasureSettings(segment, maximum_diameter, _days(days, dates), reference_thresholds)
    changes = {"features": {"encoder": encoder}, "device": device, "threads": threads}
    job = TrackJob(
        fixed,
        moving,
        output,
        moving_nodules,
        fixed_nodules,
        transform,
        uncertainty,
        prior,
        reference,
        settings_from(preset, settings, changes),
        TrackSettings(gates, RefineSettings(enabled=refine), measure),
    )
    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        tracking = run_track_job(job, progress)
    print_nodules(Console(), tracking)
    typer.echo(f"Results: {output}")


def _days(days: float | None, dates: tuple[str, str] | None) -> float | None:
    """Days between the scans, given or from their dates; only the difference is kept."""
    if dates is None:
        return days
    if days is not None:
        raise InputError("Give either --days or --dates, not both.")
    try:
        earlier, later = (datetime.date.fromisoformat(text) for text in dates)
    except ValueError as error:
        raise InputError(f"The dates must be written as 2024-03-31 ({error}).") from error
    return float((later - earlier).days)
