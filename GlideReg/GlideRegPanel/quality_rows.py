"""Verdicts, measures and motions in the panel's words. The numbers are those of the table node."""

import qt
from slicer.i18n import tr as _

from GlideRegScene.quality import tables

#: Verdict -> color of its cell, light enough for dark letters.
COLORS = {
    "compliant": "#a9dfb0",
    "review": "#ffd98a",
    "not compliant": "#f4a39b",
    "not verified": "#d0d3d8",
    "information": "#ffffff",
}
_DARK, _PALE = "#202020", "#6b6b6b"
#: Rows that a table shows at once, and heights in pixels.
_MOST_ROWS, _ROW_HEIGHT, _HEADER, _SCROLL_BAR = 12, 20, 24, 18
#: Letters of the two directions of each axis: what positive and negative mean in LPS.
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))
_GROUPS = {"body": "Body", "grid": "Whole grid", "landmarks": "Landmarks"}


def measureTitles() -> list[str]:
    return [_("Verdict"), _("Measure"), _("Where"), _("Value"), _("Criterion")]


def motionTitles() -> list[str]:
    return [_("Structure"), _("L-R"), _("A-P"), _("S-I"), _("Length"), _("By contours")]


def prepare(widget, titles: list[str]) -> None:
    """Columns and headers of an empty table widget."""
    widget.setColumnCount(len(titles))
    widget.setHorizontalHeaderLabels(titles)


def fillMeasures(widget, measures) -> None:
    """Shows the library's measures; the verdict has its color."""
    widget.setRowCount(len(measures))
    for r, measure in enumerate(measures):
        for c, text in enumerate(measureTexts(measure)):
            item = qt.QTableWidgetItem(text)
            if c == 0:
                item.setBackground(qt.QBrush(qt.QColor(COLORS[measure.verdict.value])))
                item.setForeground(qt.QBrush(qt.QColor(_DARK)))
            elif measure.value is None:
                item.setForeground(qt.QBrush(qt.QColor(_PALE)))
            item.setToolTip(f"{text}: {measure.note}" if measure.note else text)
            widget.setItem(r, c, item)
    _fit(widget)


def measureTexts(measure) -> list[str]:
    """The cells of one measure; with the value before, where there is one."""
    value = measure.text
    if measure.before is not None and measure.value is not None:
        value = f"{_bare(measure, measure.before)} → {value}"
    return [
        measure.verdict.value,
        measure.title,
        _GROUPS.get(measure.region, measure.region),
        value,
        measure.criterion,
    ]


def _bare(measure, value: float) -> str:
    """A value as the measure shows it, without its unit."""
    from GlideRegLib.assurance.catalog import KINDS

    return KINDS[measure.key].show(value).removesuffix(measure.unit).strip()


def fillMotions(widget, motions: dict) -> None:
    """How far each structure moved, with letters: signs would have to be known."""
    widget.setRowCount(len(motions))
    for r, (name, (moved, seen)) in enumerate(motions.items()):
        texts = [name, *directions(moved), f"{tables.length(moved):.1f}"]
        texts.append("–" if seen is None else " ".join(directions(seen)))
        for c, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(text)
            widget.setItem(r, c, item)
    _fit(widget)


def directions(vector) -> list[str]:
    """LPS mm as "4.0 L", "8.0 A", "12.0 S"."""
    return [
        f"{abs(value):.1f} {letters[0 if value >= 0 else 1]}" if abs(value) >= 0.05 else "0.0"
        for value, letters in zip(vector, _LETTERS, strict=True)
    ]


def verdictLine(assessment) -> str:
    """The overall verdict, which structure is worst, and how many measures have which verdict."""
    verdict = assessment.verdict
    lines = [
        _("<b>{verdict}</b> by the profile {profile}").format(
            verdict=verdict.value.capitalize(), profile=_escaped(assessment.profile.name)
        )
    ]
    worst = assessment.worst_structure
    if worst is not None:
        lines.append(
            _("Worst structure: {name} ({verdict})").format(
                name=_escaped(worst), verdict=assessment.structure_verdict(worst).value
            )
        )
    counts = (f"{n} {name}" for name, n in assessment.counts().items() if n)
    lines.append(", ".join(counts))
    return "<br>".join(line for line in lines if line)


def verdictStyle(assessment) -> str:
    """The style of the line with the overall verdict."""
    color = COLORS[assessment.verdict.value]
    return f"background: {color}; color: {_DARK}; padding: 6px; border-radius: 3px"


def detail(measure) -> str:
    """What does not fit into the table."""
    parts = [f"<b>{_escaped(measure.title)}</b>, {_escaped(measure.region)}: {measure.text}"]
    if measure.interval is not None:
        low, high = measure.interval
        parts.append(_("95 % interval {low:.2f} to {high:.2f}").format(low=low, high=high))
    if measure.n is not None:
        parts.append(f"n = {measure.n}")
    if measure.note:
        parts.append(f"<i>{_escaped(measure.note)}</i>")
    return ", ".join(parts)


def _fit(widget) -> None:
    """As wide and as high as its contents; from so many rows on it scrolls."""
    widget.resizeColumnsToContents()
    widget.resizeRowsToContents()
    rows = min(max(widget.rowCount, 1), _MOST_ROWS)
    height = _HEADER + rows * _ROW_HEIGHT + _SCROLL_BAR
    widget.setMinimumHeight(height)
    widget.setMaximumHeight(height)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
