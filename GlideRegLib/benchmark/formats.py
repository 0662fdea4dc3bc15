"""A table as Markdown, LaTeX, CSV, and for the HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from .tables import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\leq}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def markdown(table: Table) -> str:
    """A heading, the table (groups become a part of the column's name), the notes."""
    names = [f"{group}: {name}" if group else name for group, name in _named(table)]
    lines = [f"## {table.title}", "", _line(names), "|---|" + "---:|" * (len(names) - 1)]
    lines += [_line(row) for row in table.rows]
    lines += ["", *(f"{note}\n" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(table: Table) -> str:
    """A ``table`` environment with booktabs' rules (``\\usepackage{booktabs}``)."""
    columns = "l" + "r" * (len(table.columns) - 1)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if table.groups:
        heads = [rf"\multicolumn{{{n}}}{{c}}{{{_escaped(name)}}}" for name, n in table.groups]
        lines.append(" & ".join(heads) + r" \\")
    for number, row in enumerate((table.columns, *table.rows)):
        lines.append(" & ".join(map(_escaped, row)) + r" \\")
        if number == 0:
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_escaped(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def comma_separated(table: Table) -> str:
    """The table as it is shown, with one line of headings."""
    names = [f"{group}: {name}" if group else name for group, name in _named(table)]
    return _csv([names, *table.rows])


def comma_separated_rows(rows: Sequence[dict]) -> str:
    """Rows of plain values with their names in the first line; None is empty."""
    names = list(rows[0]) if rows else []
    return _csv([names, *([row[name] for name in names] for row in rows)])


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _named(table: Table) -> list[tuple[str, str]]:
    """(group, name) of every column."""
    groups = [name for name, count in table.groups for _ in range(count)]
    return list(zip(groups or [""] * len(table.columns), table.columns, strict=True))
