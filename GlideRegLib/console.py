"""What the terminal shows: progress with time left, and tables of measures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from .progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from .methods import Method
    from .tracking.records import Tracking, TrackRow


class LiveProgress:
    """``with LiveProgress(console, wish) as progress``: a bar with stage, percent and time left,
    messages above it. On a terminal that cannot be redrawn only the messages are printed."""

    def __init__(self, console: Console, wish: threading.Event) -> None:
        self._console = console
        self._wish = wish
        self._bar = RichProgress(
            TextColumn("{task.description:8}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Progress:
        self._bar.start()
        self._task = self._bar.add_task("start", total=1.0, left="")
        return Progress(self._show, self._wish.is_set)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, event: ProgressEvent) -> None:
        if event.kind == "message":
            color = "yellow" if event.level == "warning" else "dim"
            self._console.print(f"[{color}]{escape(event.text)}[/]", highlight=False)
            return
        left = "" if event.seconds_left is None else _duration(event.seconds_left) + " left"
        self._bar.update(self._task, completed=event.fraction, description=event.stage, left=left)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def print_quality(console: Console, report: dict) -> None:
    """Prints the measures of a ``result.json`` (or of ``glidereg evaluate``) as a table."""
    quality = report.get("quality", {})
    table = Table(title="GlideReg - research use only", title_style="bold")
    for name in ("measure", "before", "after"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    tre = quality.get("tre_mm")
    if tre:
        for key, label in (("mean", "mean"), ("median", "median"), ("p95", "95th"), ("max", "max")):
            table.add_row(
                f"TRE {label}, mm (n = {tre['after']['n']})",
                f"{tre['before'][key]:.2f}",
                f"{tre['after'][key]:.2f}",
            )
    dice = quality.get("mean_dice")
    if dice:
        table.add_row("mean Dice", f"{dice['before']:.3f}", f"{dice['after']:.3f}")
    folding = quality.get("folding_percent")
    if folding:
        table.add_row("folding in the body, %", "", f"{folding['body']:.4f}")
        table.add_row("folding in the grid, %", "", f"{folding['grid']:.4f}")
    strict = quality.get("folding_percent_one_sided")
    if strict:
        both = f"{strict['body']:.4f} / {strict['grid']:.4f}"
        table.add_row("the same by one-sided differences, body / grid, %", "", both)
    expected = quality.get("uncertainty_mm")
    if expected:
        spread = f"{expected['median']:.2f} / {expected['p95']:.2f}"
        table.add_row("expected error in the body, median / 95th, mm", "", spread)
    if "jacobian" in quality:
        j = quality["jacobian"]
        table.add_row("Jacobian, min to max", "", f"{j['min']:.2f} to {j['max']:.2f}")
        table.add_row("SD of log Jacobian", "", f"{quality['sd_log_jacobian']:.3f}")
    if report.get("method", "glide") != "glide":
        table.add_row("method", "", report["method"])
    if "encoder" in report:
        encoder = report["encoder"]
        trained = "" if encoder["name"] == "none" or encoder["trained"] else " (random weights)"
        table.add_row("encoder", "", encoder["name"] + trained)
    if "cost" in report:
        seconds = report["cost"]["seconds"]
        beyond = seconds["total"] - seconds.get("encode", 0.0)
        table.add_row("seconds (without encoding)", "", f"{seconds['total']:.1f} ({beyond:.1f})")
        table.add_row("peak memory, MB", "", f"{report['cost']['peak_memory_mb']:.0f}")
    console.print(table)


def print_weights(console: Console, entries: Sequence, folder: Path) -> None:
    """Prints which weights are present; ``entries`` as from ``features.weights.status``."""
    table = Table(caption=f"Cache: {folder}", show_lines=False)
    for name in ("encoder", "file", "MB", "state", "where"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        state = "missing"
        if entry.path is not None:
            state = "ready" if entry.verified else "damaged"
        table.add_row(
            entry.encoder,
            entry.spec.file_name,
            f"{entry.spec.n_bytes / 1e6:.0f}",
            state,
            str(entry.path or ""),
        )
    console.print(table)


def print_methods(console: Console, methods: Iterable[Method], details: bool = False) -> None:
    """Prints name, title and availability of methods; with ``details`` sources and options too."""
    table = Table()
    for name in ("method", "what", "here"):
        table.add_column(name, overflow="fold")
    for method in methods:
        table.add_row(method.name, method.title, method.missing() or "ready")
        if details:
            console.print(f"{method.paper}\n{method.link}\n{method.license_note}", soft_wrap=True)
            options = method.options({})
            for name, value in ({} if options is None else asdict(options)).items():
                console.print(f"  --method-option {name}={json.dumps(value)}", highlight=False)
    console.print(table)


def print_nodules(console: Console, tracking: Tracking) -> None:
    """Prints one line per tracked nodule, notes and remarks, and CPM when there was a reference."""
    table = Table(title="Nodules - research use only", title_style="bold")
    measures = ("distance, mm", "prior, mm³", "current, mm³", "change, %", "doubling, days")
    for name in ("nodule", "state", *measures):
        justify = "left" if name in ("nodule", "state") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    cells = [_nodule_cells(row) for row in tracking]
    for row in cells:
        table.add_row(*row)
    console.print(table)
    counts = [f"{count} {state}" for state, count in tracking.counts().items() if count]
    console.print(", ".join(counts), highlight=False)
    if any(row[-1].endswith("*") for row in cells):
        console.print("* to be read with reserve; nodules.csv and the report say why")
    remarks = [f"{row.name}: {remark}" for row in tracking for remark in row.remarks]
    for text in (*tracking.notes, *remarks):
        console.print(escape(text), highlight=False)
    for key, name in (("field", "by the field"), ("predicted", "after local refinement")):
        shares = tracking.quality.get("cpm_percent", {}).get(key)
        if shares:
            errors = tracking.quality["tre_mm"][key]
            within = ", ".join(f"{share:.0f} % within {t} mm" for t, share in shares.items())
            console.print(
                f"{name}: {within}; mean {errors['mean']:.2f}, median {errors['median']:.2f} mm "
                f"(n = {errors['n']})",
                highlight=False,
            )


def _nodule_cells(row: TrackRow) -> list[str]:
    volumes = [
        "" if found is None else f"{found.volume_mm3:.0f}"
        for found in (row.moving_measurement, row.fixed_measurement)
    ]
    distance = "" if row.distance_mm is None else f"{row.distance_mm:.2f}"
    cells = [escape(row.name), row.state, distance, *volumes]
    if row.growth is None:
        return [*cells, "", ""]
    doubling = row.growth.doubling_time_text
    reserve = "*" if doubling and row.growth.greyed else ""
    return [*cells, row.growth.volume_change_text, doubling + reserve]
