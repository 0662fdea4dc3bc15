"""``glidereg propagate``: structures, points, dose and models on the other image."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from .cli_options import cancel_wish
from .console import LiveProgress

_AGAIN = "May be repeated."


def propagate(
    fixed: Annotated[str, typer.Argument(help="Fixed image (file or DICOM folder).")],
    moving: Annotated[str, typer.Argument(help="Moving image (file or DICOM folder).")],
    transform: Annotated[
        str, typer.Option(metavar="FILE", help="Any ITK transform, fixed to moving, LPS mm.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the results.")],
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help=f"Label map or Slicer .seg.nrrd. {_AGAIN}"),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help=f".mrk.json (points, curves, ROIs) or a landmark file. {_AGAIN}"
        ),
    ] = None,
    dose: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help=f"Dose volume; 0 outside. {_AGAIN}")
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help=f"Any other image. {_AGAIN}")
    ] = None,
    meshes: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help=f"Surface: .vtk .stl .ply. {_AGAIN}")
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="From the fixed to the moving image instead.")
    ] = False,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Label maps without steps, by their surfaces.")
    ] = False,
) -> None:
    """Carry structures, points, dose, images and models from MOVING to FIXED."""
    from .propagation.job import PropagateJob, run_propagate_job

    job = PropagateJob(
        fixed,
        moving,
        transform,
        output,
        *(tuple(paths or ()) for paths in (labels, points, dose, images, meshes)),
        back=back,
        smooth=smooth,
    )
    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        report = run_propagate_job(job, progress)
    typer.echo(f"Written: {output} ({len(report['items'])} files, {report['direction']})")
