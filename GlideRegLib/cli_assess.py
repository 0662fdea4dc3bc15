"""``glidereg assess``: can this registration be trusted? Any transform, also of other software."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .cli_options import Landmarks, cancel_wish
from .console import LiveProgress

if TYPE_CHECKING:
    from .assurance.records import Assessment

_COLORS = {
    "compliant": "green",
    "review": "yellow",
    "not compliant": "red",
    "not verified": "magenta",
}


def _list_profiles(wanted: bool) -> None:
    """Prints the profiles that ``--profile`` takes, and ends the command."""
    if not wanted:
        return
    from .assurance.profile import Profile, available_profiles, user_folder
    from .errors import SettingsError

    for name, path in available_profiles().items():
        try:
            said = Profile.named(str(path)).name
        except SettingsError as error:
            said = f"cannot be used: {error}"
        typer.echo(f"{name}: {said}")
    typer.echo(f"Profiles of your own: .json files in {user_folder()} or $GLIDEREG_PROFILES.")
    raise typer.Exit


def assess(
    fixed: Annotated[str, typer.Argument(help="Fixed image (file or DICOM folder).")],
    moving: Annotated[str, typer.Argument(help="Moving image (file or DICOM folder).")],
    transform: Annotated[
        str, typer.Option(help="ITK transform or displacement field, fixed to moving, LPS mm.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    fixed_landmarks: Landmarks = None,
    moving_landmarks: Landmarks = None,
    fixed_labels: Annotated[
        str | None,
        typer.Option(help="Label map of the fixed image, or segmentation (.seg.nrrd)."),
    ] = None,
    moving_labels: Annotated[
        str | None,
        typer.Option(help="The same of the moving image. Segments are paired by name."),
    ] = None,
    more_fixed_labels: Annotated[
        list[str] | None,
        typer.Option(help="Another map, of structures that overlap those (other labels). Repeat."),
    ] = None,
    more_moving_labels: Annotated[
        list[str] | None, typer.Option(help="Its partner, in the same order. Repeat.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="CSV table with the columns id and name of structures.")
    ] = None,
    backward: Annotated[
        str | None,
        typer.Option(help="Transform of a registration the other way round, moving to fixed."),
    ] = None,
    onward: Annotated[
        str | None, typer.Option(help="Transform from the moving to a third image: transitivity.")
    ] = None,
    direct: Annotated[
        str | None, typer.Option(help="Transform from the fixed to that third image.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="tg132, mean2-max5, srs-1mm, or one of your own: its name or file.")
    ] = "tg132",
    list_profiles: Annotated[
        bool,
        typer.Option(
            "--list-profiles",
            callback=_list_profiles,
            is_eager=True,
            help="Show all profiles, also your own, and exit.",
        ),
    ] = False,
    jacobian: Annotated[
        bool, typer.Option("--jacobian", help="Also write jacobian.nii.gz (determinant).")
    ] = False,
) -> None:
    """Measure a transform and hold it against a profile of criteria: assessment.html and
    assessment.json. What was not measured is never called good."""
    from .assurance.job import AssessJob, run_assess_job

    job = AssessJob(
        fixed=fixed,
        moving=moving,
        transform=transform,
        output=output,
        fixed_landmarks=tuple(fixed_landmarks or ()),
        moving_landmarks=tuple(moving_landmarks or ()),
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
        more_fixed_labels=tuple(more_fixed_labels or ()),
        more_moving_labels=tuple(more_moving_labels or ()),
        names=names,
        backward=backward,
        onward=onward,
        direct=direct,
        profile=profile,
        jacobian=jacobian,
    )
    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        assessment = run_assess_job(job, progress)
    print_assessment(Console(), assessment)
    typer.echo(f"Results: {output}")


def print_assessment(console: Console, assessment: Assessment) -> None:
    """Prints the graded measures (of structures the worst), the verdict, the worst structure."""
    table = Table(title=f"{escape(assessment.profile.name)} - research use only")
    for name in ("measure", "of", "value", "criterion", "verdict"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for m, count in assessment.headline():
        color = _COLORS[m.verdict.value]
        verdict = f"[{color}]{m.verdict.value}[/]"
        region = m.region if count == 1 else f"{m.region} (worst of {count})"
        table.add_row(m.title, escape(region), m.text, m.criterion, verdict)
    console.print(table)
    console.print(f"Verdict: {assessment.verdict.value}", highlight=False)
    if assessment.worst_structure is not None:
        name = assessment.worst_structure
        said = assessment.structure_verdict(name).value
        console.print(f"Worst structure: {escape(name)} ({said})", highlight=False)
