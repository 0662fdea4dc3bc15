"""Rows of the nodule table in the panel's words. The numbers are those of the table node."""

import qt
from slicer.i18n import tr as _

from GlideRegScene.nodules.markers import COLORS
from GlideRegScene.nodules.tables import doublingRange, number

from .scan_dates import daysApart

_ARROW = " → "
#: The decision as a sign, and the error from which the library says that it knows nothing.
_SIGNS = {"open": "", "confirmed": "✓", "corrected": "✎", "rejected": "✗"}
_UNKNOWN_MM = 30.0
_DARK, _PALE = "#202020", "#8a8a8a"


def titles() -> list[str]:
    """The headers, with units."""
    return [
        _("Nodule"),
        _("State"),
        "✓",
        _("Dist. mm"),
        _("Error mm"),
        _("Ø mm"),
        _("Volume mm³"),
        _("Change"),
        _("Doubling"),
    ]


def prepare(widget) -> None:
    """Columns and headers of an empty table widget."""
    headers = titles()
    widget.setColumnCount(len(headers))
    widget.setHorizontalHeaderLabels(headers)


def fill(widget, rows) -> None:
    """Shows the library's rows; the state has the color of its markers."""
    widget.setRowCount(len(rows))
    for r, row in enumerate(rows):
        for c, text in enumerate(texts(row)):
            item = qt.QTableWidgetItem(text)
            if c == 1:
                item.setBackground(qt.QBrush(_tint(row.state)))
                item.setForeground(qt.QBrush(qt.QColor(_DARK)))
            elif row.decision == "rejected" or (c == 8 and row.growth and row.growth.greyed):
                item.setForeground(qt.QBrush(qt.QColor(_PALE)))
            item.setToolTip(_toolTip(row, c, text))
            widget.setItem(r, c, item)
    widget.resizeColumnsToContents()
    widget.resizeRowsToContents()


def texts(row) -> list[str]:
    """The cells of one row; "" for what is not known."""
    prior, current, change = row.moving_measurement, row.fixed_measurement, row.growth
    doubling = change.doubling_time_days if change else None
    return [
        row.name,
        _("outside") if row.state == "outside field of view" else row.state,
        _SIGNS[row.decision],
        number(row.distance_mm),
        _error(row.uncertainty_mm),
        _pair(prior and prior.mean_diameter_mm, current and current.mean_diameter_mm, 1),
        _pair(prior and prior.volume_mm3, current and current.volume_mm3, 0),
        f"{change.volume_change_text} %" if change else "",
        _("{n} d").format(n=f"{doubling:.0f}") if doubling is not None else "",
    ]


def daysLine(tracking) -> str:
    """The days that the doubling times of a table are made with."""
    if tracking.days is None:
        return _("Days between the scans not known: no doubling times")
    return _("Scans {days}").format(days=daysApart(tracking.days))


def detail(row) -> str:
    """What does not fit into the table: measures, range, thresholds, remarks."""
    lines = [f"<b>{_escaped(row.name)}</b>: {row.state}" + _decision(row)]
    for title, found, method in (
        (_("Prior"), row.moving_measurement, row.moving_method),
        (_("Current"), row.fixed_measurement, row.fixed_method),
    ):
        if found is not None:
            lines.append(
                _(
                    "{title}: {long:.1f} × {short:.1f} mm, {volume:.0f} mm³, {hu:.0f} HU, {how}"
                ).format(
                    title=title,
                    long=found.long_diameter_mm,
                    short=found.short_diameter_mm,
                    volume=found.volume_mm3,
                    hu=found.mean_hu,
                    how=method,
                )
            )
    if row.growth is not None and row.growth.doubling_time_days is not None:
        lines.append(_range(row.growth))
    flags = row.growth.flags if row.growth is not None else ()
    said = {True: _("reached"), False: _("not reached"), None: _("does not apply")}
    lines += [
        _("Reference {name}: {text}, {said}").format(
            name=flag.name, text=flag.text, said=said[flag.reached]
        )
        + (_(" (with reserve)") if flag.greyed else "")
        for flag in flags
    ]
    lines += [f"<i>{_escaped(remark)}</i>" for remark in row.remarks]
    return "<br>".join(lines)


def _range(growth) -> str:
    """The doubling time with what ±25 % volume error allows, and the reasons for reserve."""
    text = _("Doubling time {n} days; with ±25 % volume error {range}").format(
        n=f"{growth.doubling_time_days:.0f}", range=doublingRange(growth)
    )
    if growth.greyed:
        text += _(". With reserve: {reasons}").format(reasons="; ".join(growth.greyed))
    return text


def _toolTip(row, column: int, text: str) -> str:
    """Whole words where the cell is short."""
    return {1: row.state, 2: row.decision, 8: _reserve(row)}.get(column, text)


def _reserve(row) -> str:
    text = _("Volume doubling time in days; negative when the nodule shrinks")
    if row.growth is None or not row.growth.greyed:
        return text
    return text + _(". With reserve: {reasons}").format(reasons="; ".join(row.growth.greyed))


def _decision(row) -> str:
    return "" if row.decision == "open" else f", {row.decision}"


def _error(millimeters: float | None) -> str:
    known = millimeters is None or millimeters < _UNKNOWN_MM
    return number(millimeters) if known else _("unknown")


def _pair(before: float | None, after: float | None, digits: int) -> str:
    """ "8.0 → 10.1", with a dash on the side that is not known."""
    if before is None and after is None:
        return ""
    return _ARROW.join(number(value, digits) or "–" for value in (before, after))


def _tint(state: str):
    """The color of a state, light enough for dark letters."""
    return qt.QColor(*(round(255 * (0.45 * c + 0.55)) for c in COLORS[state]))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
