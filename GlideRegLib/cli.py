"""The command line: ``glidereg register | evaluate | warp | warp-points | weights | ...``.

Every problem that a user can act on ends in one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from . import __version__, machine
from .cli_assess import assess
from .cli_benchmark import benchmark, export
from .cli_commission import commission
from .cli_options import (
    Device,
    Landmarks,
    Preset,
    cancel_wish,
    named_values,
    settings_from,
    write_json,
)
from .cli_propagate import propagate
from .cli_track import track
from .console import LiveProgress, print_methods, print_quality, print_weights
from .errors import Cancelled, GlideRegError, InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="GlideReg: deformable registration of CT and MR with foundation-model features. "
    "Research use only.",
)
weights_app = typer.Typer(no_args_is_help=True, help="Encoder weights: list, fetch, verify, clear.")
app.add_typer(weights_app, name="weights")
app.command()(assess)
app.command()(track)
app.command()(propagate)
app.command()(commission)
app.command()(benchmark)
app.command()(export)

Constraints = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Landmarks that guide the registration. May be repeated."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"glidereg {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def register(
    fixed: Annotated[str, typer.Argument(help="Fixed image (file or DICOM folder).")],
    moving: Annotated[str, typer.Argument(help="Moving image (file or DICOM folder).")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    preset: Annotated[Preset, typer.Option(help="Working grid 2, 1.5, 1 mm; or as printed.")] = (
        "standard"
    ),
    method: Annotated[str, typer.Option(help="A name from 'glidereg methods'.")] = "glide",
    method_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of that method. May be repeated."),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="auto, none, or a name from 'glidereg weights list'; "
            "none needs no weights (local features only)."
        ),
    ] = "auto",
    weights: Annotated[str | None, typer.Option(help="Weights file for the encoder.")] = None,
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Take --weights of an unknown sha256.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    reduction: Annotated[
        Literal["dynamic", "static", "pca"] | None,
        typer.Option(help="How 256 channels become 12."),
    ] = None,
    features: Annotated[
        Literal["both", "global", "local"] | None, typer.Option(help="Which features to compare.")
    ] = None,
    fixed_mask: Annotated[str | None, typer.Option(help="Region that counts (fixed).")] = None,
    moving_mask: Annotated[str | None, typer.Option(help="Region that counts (moving).")] = None,
    sliding_mask: Annotated[
        str | None,
        typer.Option(help="Label map on the fixed image; tissue slides where labels meet."),
    ] = None,
    sliding: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option(help="Yield where tissue shears, without a mask: auto is MR only."),
    ] = None,
    lungs_slide: Annotated[
        bool, typer.Option("--lungs-slide", help="The lungs are found (CT) and may slide.")
    ] = False,
    fixed_landmarks: Landmarks = None,
    moving_landmarks: Landmarks = None,
    fixed_constraints: Constraints = None,
    moving_constraints: Constraints = None,
    fixed_labels: Annotated[str | None, typer.Option(help="Label map, to measure.")] = None,
    moving_labels: Annotated[str | None, typer.Option(help="Label map, to measure.")] = None,
    initial_transform: Annotated[
        str, typer.Option(help="auto, none, or a linear ITK transform file, fixed to moving.")
    ] = "auto",
    modality: Annotated[Literal["auto", "ct", "mr"], typer.Option(help="What the values are.")] = (
        "auto"
    ),
    spacing: Annotated[float | None, typer.Option(help="Working grid in mm.")] = None,
    settings: Annotated[
        str | None, typer.Option(help="JSON file with settings; options here go before it.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads, 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Stay within 8 GB, at a coarser plan if need be.")
    ] = False,
    cache: Annotated[bool, typer.Option(help="Keep encoded slices on disk.")] = True,
    jacobian: Annotated[
        bool, typer.Option("--jacobian", help="Also write jacobian.nii.gz (determinant).")
    ] = False,
) -> None:
    """Register MOVING to FIXED and write transforms, warped image, result.json and report.html."""
    from .job import Job, run_job
    from .memory import LOW_MEMORY_MB

    feature_changes: dict[str, object] = {
        "encoder": encoder,
        "weights": weights,
        "allow_unverified": allow_unverified,
        "cache": cache,
    }
    changes: dict[str, object] = {
        "features": feature_changes,
        "device": device,
        "initial": initial_transform,
        "modality": modality,
        "threads": threads,
        "seed": seed,
    }
    if method != "glide":
        changes["method"] = method
    if method_option:
        changes["method_options"] = named_values(method_option)
    refine_changes: dict[str, object] = {}
    if features:
        feature_changes["use"] = features
    if reduction:
        changes["reduction"] = {"kind": reduction}
    if spacing is not None:
        changes["grid"] = {"spacing_mm": spacing}
    if lungs_slide:
        refine_changes["lungs_slide"] = True
    if sliding:
        refine_changes["yields"] = {"auto": "auto", "on": "always", "off": "never"}[sliding]
    changes["refine"] = refine_changes
    if low_memory:
        changes["memory_limit_mb"] = LOW_MEMORY_MB
    job = Job(
        fixed=fixed,
        moving=moving,
        output=output,
        settings=settings_from(preset, settings, changes),
        fixed_mask=fixed_mask,
        moving_mask=moving_mask,
        sliding_mask=sliding_mask,
        fixed_landmarks=tuple(fixed_landmarks or ()),
        moving_landmarks=tuple(moving_landmarks or ()),
        fixed_constraints=tuple(fixed_constraints or ()),
        moving_constraints=tuple(moving_constraints or ()),
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
        jacobian=jacobian,
    )
    console = Console(stderr=True)
    with LiveProgress(console, cancel_wish()) as progress:
        report = run_job(job, progress)
    print_quality(Console(), report)
    typer.echo(f"Results: {output}")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its options.")] = None,
) -> None:
    """List the registration methods, which of them can run here, and how to get the others."""
    from .methods import METHODS, find

    print_methods(Console(), [find(name)] if name else METHODS.values(), details=bool(name))


@app.command()
def evaluate(
    fixed: Annotated[str, typer.Option(help="Fixed image.")],
    moving: Annotated[str, typer.Option(help="Moving image.")],
    transform: Annotated[str, typer.Option(help="ITK transform or displacement field.")],
    fixed_landmarks: Landmarks = None,
    moving_landmarks: Landmarks = None,
    fixed_labels: Annotated[str | None, typer.Option(help="Label map of the fixed image.")] = None,
    moving_labels: Annotated[str | None, typer.Option(help="Label map of the moving image.")] = (
        None
    ),
    json_file: Annotated[str | None, typer.Option("--json", help="Write the measures here.")] = (
        None
    ),
) -> None:
    """Measure any transform (fixed to moving, LPS mm): TRE, Dice, HD95, folding, Jacobian."""
    from .evaluation import evaluate_files

    measures = evaluate_files(
        fixed,
        moving,
        transform,
        tuple(fixed_landmarks or ()),
        tuple(moving_landmarks or ()),
        fixed_labels,
        moving_labels,
    )
    print_quality(Console(), measures)
    if json_file:
        write_json(json_file, measures)


@app.command()
def warp(
    image: Annotated[str, typer.Argument(help="Moving image or label map.")],
    transform: Annotated[str, typer.Option(help="ITK transform or displacement field.")],
    reference: Annotated[str, typer.Option(help="Image whose grid the output gets.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Output file.")],
    labels: Annotated[bool, typer.Option("--labels", help="Nearest neighbor.")] = False,
    background: Annotated[
        float | None, typer.Option(help="Value outside; CT -1024, else the minimum.")
    ] = None,
) -> None:
    """Resample IMAGE through a transform onto the grid of REFERENCE."""
    from .evaluation import warp_file

    warp_file(image, transform, reference, output, labels, background)
    typer.echo(f"Written: {output}")


@app.command("warp-points")
def warp_points(
    points: Annotated[str, typer.Argument(help="Landmark file (fixed points).")],
    transform: Annotated[str, typer.Option(help="ITK transform or displacement field.")],
    output: Annotated[str, typer.Option("--output", "-o", help=".mrk.json, .fcsv, .csv, .txt")],
) -> None:
    """Carry points through a transform: fixed to moving with transform.h5, back with
    inverse_transform.h5."""
    from .evaluation import warp_points_file

    count = warp_points_file(points, transform, output)
    typer.echo(f"Written: {output} ({count} points, LPS mm)")


@weights_app.command("list")
def weights_list() -> None:
    """Which encoder weights are here, and where."""
    from .features import weights

    print_weights(Console(), weights.status(), weights.weights_folder())


@weights_app.command("fetch")
def weights_fetch(name: Annotated[str, typer.Argument(help="Name of an encoder.")]) -> None:
    """Download weights (resumes a broken download) and check their sha256."""
    from .features import weights

    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        path = weights.fetch(name, progress)
    typer.echo(f"Ready: {path}")


@weights_app.command("verify")
def weights_verify(
    name: Annotated[str, typer.Argument(help="An encoder, or all.")] = "all",
) -> None:
    """Hash the files again; exit code 2 when one is not what it should be."""
    from .features import weights

    found = weights.verify(name)
    print_weights(Console(), found, weights.weights_folder())
    damaged = [entry.encoder for entry in found if entry.path is not None and not entry.verified]
    if damaged:
        raise InputError(f"These weights are damaged: {', '.join(damaged)}; fetch them again.")


@weights_app.command("clear")
def weights_clear() -> None:
    """Delete the downloaded weights and the cache of encoded slices (never your own files)."""
    from .features import weights
    from .features.cache import FeatureCache

    freed = weights.clear() + FeatureCache().clear()
    typer.echo(f"Freed {freed / 2**20:.1f} MB.")


@app.command()
def demo(
    data: Annotated[
        str | None, typer.Option(help="Data folder with lung_followup/: the real pair.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")] = (
        "demo-output"
    ),
    preset: Annotated[Preset, typer.Option(help="Preset.")] = "standard",
    encoder: Annotated[str, typer.Option(help="Encoder, or auto.")] = "auto",
) -> None:
    """Register a pair whose truth is known (a built-in phantom), or the real follow-up pair."""
    from .demo import run_demo

    console = Console()
    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        report = run_demo(data, output, preset, encoder, progress)
    print_quality(console, report)
    typer.echo(f"Report: {Path(output) / 'report.html'}")


@app.command()
def ablation(
    pairs: Annotated[
        list[str],
        typer.Option("--pair", help="phantom, semi-synthetic, lung or mr; may be repeated."),
    ] = ("phantom", "semi-synthetic"),
    data: Annotated[str | None, typer.Option(help="Folder of the real data.")] = None,
    encoder: Annotated[str, typer.Option(help="Encoder, or auto.")] = "auto",
    preset: Annotated[Preset, typer.Option(help="Preset.")] = "standard",
    json_file: Annotated[str | None, typer.Option("--json", help="Write the table here.")] = None,
) -> None:
    """Print the ablation table: local, global, PCA, static, dynamic, random weights."""
    from .ablation import print_table, run_ablation

    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        rows = run_ablation(list(pairs), data, encoder, preset, progress)
    console = Console()
    print_table(console if console.is_terminal else Console(width=130), rows)
    if json_file:
        write_json(json_file, {"rows": rows})


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns (and as a script exits with) the exit code."""
    machine.configure_process()
    console = Console(stderr=True, highlight=False)
    try:
        code = app(args=arguments, standalone_mode=False)
        return int(code or 0)
    except GlideRegError as error:
        word = "Cancelled" if isinstance(error, Cancelled) else "Error"
        console.print(f"[bold red]{word}:[/] {escape(str(error))}", soft_wrap=True)
        return error.exit_code
    except typer.Abort:
        return Cancelled.exit_code
    except KeyboardInterrupt:
        console.print("[bold red]Cancelled:[/] nothing was written.")
        return Cancelled.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong options; typer's class depends on its version
            console.print(f"[bold red]Error:[/] {escape(error.format_message())}", soft_wrap=True)
            return 2
        if os.environ.get("GLIDEREG_DEBUG"):
            traceback.print_exc()
        console.print(
            f"[bold red]Error:[/] GlideReg failed in a way that it should not "
            f"({type(error).__name__}: {escape(str(error)[:300])}). Run it again with "
            "GLIDEREG_DEBUG=1 for the details, and please report it.",
            soft_wrap=True,
        )
        return 1


def run_script() -> None:
    """What the installed command ``glidereg`` runs."""
    sys.exit(main())


if __name__ == "__main__":
    run_script()
