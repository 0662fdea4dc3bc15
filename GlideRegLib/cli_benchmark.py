"""``glidereg benchmark`` and ``glidereg export``: methods compared, and files for challenges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from .cli_options import Device, Preset, cancel_wish, settings_from
from .console import LiveProgress


def benchmark(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            help="CSV manifest, Learn2Reg *_dataset.json, folder of DIR-Lab 4DCT, COPDgene or "
            "Lung250M-4B, or phantoms, nodules, semi-synthetic, lung-followup, liver-mr, lung1.",
        ),
    ],
    methods: Annotated[
        str, typer.Option(help="Names apart by commas; none and affine are the starts.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder; finished runs stay.")],
    reference: Annotated[
        str | None, typer.Option(help="Method that the others are tested against.")
    ] = None,
    preset: Annotated[Preset, typer.Option(help="Preset of our methods.")] = "standard",
    encoder: Annotated[str, typer.Option(help="Encoder of our methods, or none.")] = "auto",
    settings: Annotated[str | None, typer.Option(help="JSON file with settings.")] = None,
    options: Annotated[
        str | None,
        typer.Option(help="JSON file: method -> its own options, where they are not its defaults."),
    ] = None,
    split: Annotated[
        Literal["val", "test", "train"] | None, typer.Option(help="Part of the data set.")
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--pair", help="Only this pair; may be repeated.")
    ] = None,
    structures: Annotated[
        str | None,
        typer.Option(
            help="Folder with TotalSegmentator's masks or label maps: PAIR/fixed and PAIR/moving, "
            "or by image name."
        ),
    ] = None,
    segment: Annotated[
        bool,
        typer.Option("--segment", help="TotalSegmentator, where a pair has no structures."),
    ] = False,
    masks: Annotated[
        bool, typer.Option("--masks", help="Give the data set's masks to methods that take them.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Folder of the real sample data.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    limit: Annotated[float, typer.Option(help="Seconds after which a run is ended.")] = 3600.0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of a run, 0 for all.")] = 0,
    fields: Annotated[bool, typer.Option(help="Keep displacement.nii.gz of every run.")] = True,
) -> None:
    """Run methods on data sets, each run in its own process, only what is missing, and print and
    write the tables of the GLIDE-Reg paper."""
    from .benchmark.output import write_benchmark
    from .benchmark.runner import BenchmarkJob, run_benchmark
    from .errors import SettingsError

    changes = {"device": device, "threads": threads, "features": {"encoder": encoder}}
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    if reference is not None and reference not in names:
        raise SettingsError(f"The reference '{reference}' is none of the methods.")
    job = BenchmarkJob(
        tuple(datasets),
        names,
        output,
        settings_from(preset, settings, changes),
        _read_options(options),
        split=split,
        data=data,
        structures=structures,
        segment=segment,
        pairs=tuple(pairs or ()),
        masks=masks,
        keep_fields=fields,
        jobs=jobs,
        limit_seconds=limit,
    )
    with LiveProgress(Console(stderr=True), cancel_wish()) as progress:
        records = run_benchmark(job, progress)
    tables = write_benchmark(Path(output), records, reference or _reference(names))
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    for table in tables:
        console.print(_as_rich(table))
        for note in table.notes:
            console.print(note, style="dim", markup=False, highlight=False)
    typer.echo(f"Results: {output}")


def _read_options(path: str | None) -> dict[str, dict]:
    """Method -> options, from a JSON file."""
    from .errors import InputError

    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The options '{path}' cannot be read ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"The options '{path}' must be an object of objects: method -> options.")
    return content


def _reference(names: tuple[str, ...]) -> str:
    """glide when it takes part, else the first method."""
    return "glide" if "glide" in names else names[0]


def _as_rich(table: object) -> Table:
    """A table of the benchmark for the terminal."""
    shown = Table(title=table.title, title_style="bold", title_justify="left")
    groups = [name for name, count in table.groups for _ in range(count)]
    for number, name in enumerate(table.columns):
        group = groups[number] if groups else ""
        new = group and (number == 0 or groups[number - 1] != group)
        head = f"{group}\n{name}" if new else (f"\n{name}" if groups else name)
        shown.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def export(
    transform: Annotated[str, typer.Argument(help="ITK transform or displacement field.")],
    fixed: Annotated[str, typer.Option(help="Fixed image.")],
    moving: Annotated[str, typer.Option(help="Moving image.")],
    kind: Annotated[
        Literal["learn2reg", "lung250m", "empire10"],
        typer.Option("--format", help="disp_*.nii.gz; N x 6 CSV; defX, defY, defZ."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder, or the file (learn2reg, lung250m).")
    ],
    points: Annotated[
        str | None, typer.Option(help="Fixed points for lung250m; else a lattice in the body.")
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="Fixed label map that holds the lattice for lung250m.")
    ] = None,
) -> None:
    """Write a transform (fixed to moving, LPS mm) as a challenge wants it."""
    from .benchmark.exports import export_files

    path = export_files(kind, transform, fixed, moving, output, points, mask)
    typer.echo(f"Written: {path}")
