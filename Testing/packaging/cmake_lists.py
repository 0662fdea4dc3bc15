"""Reads from CMake lists what they would ship, without CMake: continuous integration has none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_COMMENT = re.compile(r"#[^\n]*")
_COMMAND = re.compile(r"(\w+)\s*\(([^()]*)\)")
_ARGUMENT = re.compile(r'"([^"]*)"|([^\s"]+)')
_REFERENCE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class ShippedFiles:
    """What one CMake macro call installs: ``scripts`` and ``resources`` relative to its folder."""

    macro: str
    options: dict[str, list[str]]
    scripts: list[str]
    resources: list[str]


def commands(path: Path) -> list[tuple[str, list[str]]]:
    """Every command of a CMake file with its arguments, in order; variables are not replaced."""
    text = _without_comments(path.read_text(encoding="utf-8"))
    return [(name, _arguments(body)) for name, body in _COMMAND.findall(text)]


def shipped_files(path: Path, macro: str) -> ShippedFiles:
    """What the one call of ``macro`` in the CMake file ships, with its variables replaced.

    Raises ValueError unless the file calls the macro exactly once.
    """
    variables: dict[str, list[str]] = {}
    calls = []
    for name, arguments in commands(path):
        if name == "set":
            variables[arguments[0]] = _expand(arguments[1:], variables)
        elif name == macro:
            calls.append(_options(_expand(arguments, variables)))
    if len(calls) != 1:
        raise ValueError(f"{path} calls {macro} {len(calls)} times, not once")
    options = calls[0]
    return ShippedFiles(macro, options, options.get("SCRIPTS", []), options.get("RESOURCES", []))


def _without_comments(text: str) -> str:
    return "\n".join(
        line if '"' in line else _COMMENT.sub("", line)  # a URL may hold a '#'
        for line in text.splitlines()
    )


def _arguments(body: str) -> list[str]:
    return [quoted or bare for quoted, bare in _ARGUMENT.findall(body)]


def _expand(arguments: list[str], variables: dict[str, list[str]]) -> list[str]:
    """Replaces known variables; one that is a whole argument becomes as many as it holds."""
    result = []
    for argument in arguments:
        whole = _REFERENCE.fullmatch(argument)
        if whole and whole[1] in variables:
            result += variables[whole[1]]
        else:
            result.append(_REFERENCE.sub(lambda m: ";".join(variables.get(m[1], [m[0]])), argument))
    return result


def _options(arguments: list[str]) -> dict[str, list[str]]:
    """Keyword arguments as CMake's own parser groups them: an upper-case word opens a group."""
    options: dict[str, list[str]] = {}
    current = ""
    for argument in arguments:
        if re.fullmatch(r"[A-Z_]+", argument):
            current = argument
            options[current] = []
        else:
            options.setdefault(current, []).append(argument)
    return options
