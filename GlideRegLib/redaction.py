"""Takes file names, paths and addresses out of texts: they often name patients and users.

The library's own reports name inputs by role; this is the second lock on the door, for messages
that quote a file (a landmark file without a frame, weights that were fetched).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

_ENDINGS = (
    r"nii(?:\.gz)?|nrrd|nhdr|mha|mhd|raw|zraw|hdr|img|dcm|ima|h5|hdf5?|tfm|mat|xfm|json|fcsv|csv|"
    r"txt|pts|pth?|pt\.tar|safetensors|whl|zip|gz|tar|onnx|png|jpe?g|html|log|mrb|py"
)
_PATTERNS = (
    # An address, whatever its scheme.
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I), "(address)"),
    # Anything in quotes that holds a separator or ends like a file: it may contain spaces.
    (re.compile(r"(['\"])(?:(?!\1).)*[/\\](?:(?!\1).)*\1"), "(file)"),
    (re.compile(rf"(['\"])(?:(?!\1).)+\.(?:{_ENDINGS})\1", re.I), "(file)"),
    # Windows, network and Unix paths.
    (re.compile(r"(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)[^\s'\"<>]*"), "(file)"),
    (re.compile(r"(?<![\w.)])(?:~|\.{1,2})?/[^\s'\"<>]+"), "(file)"),
    (re.compile(rf"(?<![\w/])[\w.@+-]*\w\.(?:{_ENDINGS})\b", re.I), "(file)"),
)
#: Endings of two parts name nobody: a sentence may list them.
_BARE = {".nii.gz", ".mrk.json", ".pt.tar", ".tar.gz"}
# The words beside ^ that consist of letters: "PTV_60^2" is no person.
_PERSON_NAME = re.compile(r"{0}(?:\^+{0})+".replace("{0}", r"[^\W\d_](?:['’.-]?[^\W\d_])*\.?"))
_BIRTH = re.compile(
    r"\b(?:DOB|born|birth\s*date|date of birth|geb\.?)\W*"
    r"(?:\d{1,4}[-./ ]\d{1,2}[-./ ]\d{1,4}|\d{8})",
    re.I,
)


def without_names(text: str) -> str:
    """The text with "(file)" and "(address)" in the place of what would name one."""
    for pattern, substitute in _PATTERNS:
        text = pattern.sub(partial(_unless_bare, substitute), text)
    return text


def _unless_bare(substitute: str, match: re.Match[str]) -> str:
    return match[0] if match[0].strip("'\"") in _BARE else substitute


def with_roles(text: str, files: Mapping[str, Path]) -> str:
    """The text with what files are for, as in "(fixed landmarks)", in the place of their paths and
    of paths below them. To be called before :func:`without_names`, which leaves only "(file)"."""
    for role, path in sorted(files.items(), key=lambda item: -len(str(item[1]))):
        own = re.escape(str(path))
        text = re.sub(rf"'{own}(?:[/\\][^']*)?'|{own}(?![\w/\\]|\.\w)", f"({role})", text)
    return text


def without_persons(text: str) -> str:
    """:func:`without_names`, and "(name)" and "(date)" in the place of what DICOM writes of people:
    Family^Given, and a date after "DOB" and the like. For texts that people typed, such as names of
    structures. What a person wrote in other words stays: such texts must be read before they are
    passed on."""
    return _BIRTH.sub("(date)", _PERSON_NAME.sub("(name)", without_names(text)))


def without_names_in(data: object) -> object:
    """The same for all strings in nested lists and dictionaries of plain values."""
    if isinstance(data, str):
        return without_names(data)
    if isinstance(data, dict):
        return {key: without_names_in(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_names_in(value) for value in data]
    return data
