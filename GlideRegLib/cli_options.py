"""What several commands of the command line share: kinds of options, settings, cancelling."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .errors import InputError, SettingsError

if TYPE_CHECKING:
    from .settings import Settings

Preset = Literal["fast", "standard", "fine", "paper"]
Device = Literal["auto", "cpu", "cuda"]
Landmarks = Annotated[
    list[str] | None,
    typer.Option(help="Landmarks: .mrk.json, .fcsv, elastix .txt, .csv. May be repeated."),
]


def settings_from(preset: str, file: str | None, changes: dict) -> Settings:
    """Preset, then the settings file, then the options."""
    from .settings import Settings, with_changes

    base = Settings.preset(preset)
    if file:
        try:
            data = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"The settings file '{file}' cannot be read ({error}).") from error
        data.setdefault("preset_name", preset)
        base = Settings.from_dict(data)
    return with_changes(base, **changes)


def named_values(texts: list[str]) -> dict[str, object]:
    """``NAME=VALUE`` texts as a dictionary; a value is JSON where it can be read so, else text.

    Raises :class:`SettingsError` for a text without a name."""
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"'{text}' is no option of a method; write NAME=VALUE.")
        try:
            values[name.strip()] = json.loads(value)
        except ValueError:
            values[name.strip()] = value
    return values


def write_json(path: str, content: dict) -> None:
    """Writes indented JSON, whole or not at all."""
    from .volume import replace_whole

    text = json.dumps(content, indent=2) + "\n"
    replace_whole(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def cancel_wish() -> threading.Event:
    """Set by Ctrl+C: the run ends at its next step; a second Ctrl+C ends it at once."""
    wish = threading.Event()

    def on_interrupt(*_: object) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
        wish.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, on_interrupt)
    return wish
