"""The files of a benchmark: tables in four formats, figures, every number."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from .. import __version__, machine
from ..result import NOTICE
from ..volume import replace_whole
from . import figures, formats
from . import statistics as st
from .baselines import title_of
from .long_form import long_rows
from .tables import Table, all_tables

SCHEMA = "glidereg-benchmark-1"
#: Points that have pictures -> what the names of the files end with.
_KINDS = {"landmarks": "", "nodules": "_nodules"}


def write_benchmark(folder: Path, records: Sequence[dict], reference: str) -> list[Table]:
    """Writes ``benchmark.md``, ``.html``, ``.json``, ``.csv`` (long), each table as ``.csv`` and
    ``.tex``, and where there are points ``boxplots.png`` and ``cumulative.png`` (of nodules:
    ``boxplots_nodules.png``, ``cumulative_nodules.png``); returns the tables.

    ``reference`` is the method that the others are tested against. Each file appears whole.
    Raises :class:`OutputError`.
    """
    tables = all_tables(records, reference)
    head = describe(records)
    pictures = _pictures(records)
    rows = long_rows(records, reference)
    texts = {
        "benchmark.md": _markdown(tables, head),
        "benchmark.html": _html(tables, head, pictures),
        "benchmark.csv": formats.comma_separated_rows(rows),
        "benchmark.json": json.dumps(
            {"schema": SCHEMA, "notice": NOTICE, **head, "rows": rows, "runs": list(records)},
            indent=1,
        )
        + "\n",
    }
    for table in tables:
        texts[f"{table.key}.csv"] = formats.comma_separated(table)
        texts[f"{table.key}.tex"] = formats.latex(table)
    for name, text in texts.items():
        replace_whole(folder / name, partial(_write, text.encode("utf-8")))
    for name, data in pictures.items():
        replace_whole(folder / name, partial(_write, data))
    return tables


def _pictures(records: Sequence[dict]) -> dict[str, bytes]:
    """File name -> PNG of the figures for which there are points."""
    found = {}
    for kind, ending in _KINDS.items():
        found[f"boxplots{ending}.png"] = figures.box_plots(records, kind)
        found[f"cumulative{ending}.png"] = figures.cumulative_curves(records, kind)
    return {name: data for name, data in found.items() if data is not None}


def describe(records: Sequence[dict]) -> dict:
    """Date, machine, versions, data sets, methods. No host, user or file names."""
    import psutil

    versions: dict[str, str] = {"glidereg": __version__, "python": platform.python_version()}
    for record in records:
        versions.update(record.get("versions") or {})
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": machine.usable_cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "devices": sorted({r["device"] for r in records if not r["problem"]}),
        },
        "versions": versions,
        "datasets": {record["dataset_name"]: record["about"] for record in records},
        "methods": {name: title_of(name) for name in st.in_order(records, "method")},
    }


def machine_in_words(head: dict) -> str:
    """The head as one line."""
    about = head["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    devices = "; ".join(about["devices"]) or "no device"
    return (
        f"{head['date']}; {about['system']}, {about['cores']} cores, {about['memory_gib']} GiB; "
        f"{devices}; {versions}."
    )


def _markdown(tables: Sequence[Table], head: dict) -> str:
    parts = ["# Registration benchmark\n", f"{NOTICE}\n", f"{machine_in_words(head)}\n"]
    parts += [f"- {name}: {about}" for name, about in head["datasets"].items()]
    return "\n".join(parts) + "\n\n" + "\n".join(formats.markdown(table) for table in tables)


def _html(tables: Sequence[Table], head: dict, pictures: dict[str, bytes]) -> str:
    from ..report import page_template

    uris = {
        name.removesuffix(".png"): f"data:image/png;base64,{base64.b64encode(data).decode()}"
        for name, data in pictures.items()
    }
    return page_template("benchmark.html.j2").render(
        notice=NOTICE,
        version=__version__,
        machine=machine_in_words(head),
        datasets=head["datasets"],
        tables=tables,
        # Kind, box plots, cumulative curves: both are there, or neither.
        pictures=[
            (kind, uris[f"boxplots{ending}"], uris[f"cumulative{ending}"])
            for kind, ending in _KINDS.items()
            if f"boxplots{ending}" in uris
        ],
    )


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)
