"""Errors that a person can act on.

Everything that goes wrong because of an input, a setting, a missing file or the machine is raised
as a :class:`GlideRegError` whose text is one clear sentence: what is wrong, with which file, and
what to do. The command line prints that sentence and exits with ``exit_code``; the worker sends it
as an ``error`` event with ``kind``. Any other exception is a fault of ours.
"""

from __future__ import annotations


class GlideRegError(Exception):
    """Base class: one sentence for the user. ``kind`` names the class for machines."""

    kind = "error"
    exit_code = 2


class InputError(GlideRegError):
    """An image, mask, landmark or transform file is missing, damaged or does not fit."""

    kind = "input"


class SettingsError(GlideRegError):
    """A setting is out of its range or contradicts another one."""

    kind = "settings"


class WeightsError(GlideRegError):
    """Encoder weights are missing, damaged, or are not what they claim to be."""

    kind = "weights"


class OutputError(GlideRegError):
    """A result cannot be written."""

    kind = "output"


class MethodError(GlideRegError):
    """A registration method of others failed, or gave back what cannot be used."""

    kind = "method"


class MemoryExceededError(GlideRegError):
    """The run does not fit into the memory of the machine or of the GPU."""

    kind = "memory"


class Cancelled(GlideRegError):  # noqa: N818 - it reports a wish of the user, not a fault
    """The user cancelled the run; nothing was written."""

    kind = "cancelled"
    exit_code = 130
