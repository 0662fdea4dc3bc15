"""A small phantom pair as files: enough for a whole run in seconds."""

from __future__ import annotations

from pathlib import Path

from GlideRegLib.sample_data.phantom import PhantomPair, make_phantom_pair

#: Settings of a run that takes seconds: coarse grid, local features.
QUICK = ["--preset", "fast", "--encoder", "none", "--spacing", "4"]


def make_small_pair() -> PhantomPair:
    """80 x 64 x 80 voxels of 4 mm: the whole chest of the phantom."""
    return make_phantom_pair(size=(80, 64, 80), spacing=(4.0, 4.0, 4.0), amplitude=25.0)


def as_arguments(paths: dict[str, Path]) -> list[str]:
    """The image arguments of ``glidereg register``."""
    return [str(paths["fixed"]), str(paths["moving"])]
