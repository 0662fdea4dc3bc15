"""``glidereg commission``: known fields on the user's own CT, registered back."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .cli_options import Device, Preset, cancel_wish, settings_from
from .console import LiveProgress


def commission(
    image: Annotated[str, typer.Argument(metavar="CT", help="A chest CT (file or DICOM folder).")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    preset: Annotated[Preset, typer.Option(help="Preset that is commissioned.")] = "standard",
    encoder: Annotated[str, typer.Option(help="Encoder, or none.")] = "auto",
    cases: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="rigid, small, medium, large; may be repeated."),
    ] = None,
    share: Annotated[
        float, typer.Option(help="Percent of the body that must be within --within-mm.")
    ] = 95.0,
    within_mm: Annotated[float, typer.Option(help="See --share.")] = 2.0,
    largest_mm: Annotated[float, typer.Option(help="No error may reach this, mm.")] = 5.0,
    profile: Annotated[
        str, typer.Option(help="Criteria of the other measures: see `glidereg assess`.")
    ] = "tg132",
    settings: Annotated[str | None, typer.Option(help="JSON file with settings.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the motions and the noise.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads, 0 for all.")] = 0,
) -> None:
    """Warp CT by known fields, register it back, and write error maps, a table with verdicts and
    report.html. Exit code 0 whatever the verdict is."""
    from .commission.cases import CASES
    from .commission.job import CommissionJob, run_commission_job
    from .commission.measures import Limits

    changes = {"features": {"encoder": encoder}, "device": device, "threads": threads}
    job = CommissionJob(
        image,
        output,
        settings_from(preset, settings, changes),
        tuple(cases) if cases else tuple(CASES),
        Limits(share, within_mm, largest_mm),
        seed,
        profile=profile,
    )
    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        report = run_commission_job(job, progress)
    console = Console()
    console.print(_table(report))
    if report["not_run"]:
        typer.echo(f"Not run, so not verified: {', '.join(report['not_run'])}.")
    if report["limits_note"]:
        typer.echo(report["limits_note"])
    typer.echo(f"Verdict: {report['verdict']}. Results: {output}")


def _table(report: dict) -> Table:
    """Errors in the body, a row for each case."""
    table = Table(title="Errors against the known truth, body, mm (research use only)")
    for column in ("case", "motion mean", "mean", "95th", "max", "≤ 2 mm", "folds %", "verdict"):
        table.add_column(column, justify="left" if column in ("case", "verdict") else "right")
    for case in report["cases"]:
        error, motion = case["error_mm"]["body"], case["motion_mm"]["body"]
        if error is None:
            table.add_row(case["name"], *["-"] * 6, case["verdict"])
            continue
        numbers = (motion["mean"], error["mean"], error["p95"], error["max"])
        table.add_row(
            case["name"],
            *(f"{value:.2f}" for value in numbers),
            f"{case['within_percent']['body']['2']:.2f} %",
            f"{case['folding_percent']['body']:.4f}",
            case["verdict"],
        )
    return table
