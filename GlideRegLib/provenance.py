"""What ``result.json`` says: numbers, cost, and how to get them again. No patient identifiers."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

from . import machine
from ._version import __version__
from .progress import Progress
from .redaction import without_names, without_names_in
from .result import NOTICE, SCHEMA, Result
from .settings import Settings
from .volume import Volume

if TYPE_CHECKING:
    from .features.encoders import Encoder

_PACKAGES = ("torch", "numpy", "scipy", "SimpleITK")


def build_report(
    result: Result,
    settings: Settings,
    encoder: Encoder | None,
    quality: dict,
    progress: Progress,
    inputs: tuple[Volume | None, ...],
    device: str,
    threads: int,
    total_seconds: float,
) -> dict:
    """The plain-value report of a run. Files appear by role and sha256, never by name."""
    seconds = {name: round(value, 3) for name, value in progress.seconds.items()}
    roles = ("fixed", "moving", "fixed_mask", "moving_mask", "sliding_labels")
    volumes = {role: v for role, v in zip(roles, inputs, strict=False) if v is not None}
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "method": settings.method,
        "modality": result.modality,
        "encoder": describe_encoder(encoder),
        "quality": quality,
        "cost": {
            "seconds": {"total": round(total_seconds, 3), **seconds},
            "peak_memory_mb": round(machine.peak_memory_mb(), 1),
        },
        "messages": [f"{level}: {without_names(text)}" for level, text in progress.messages],
        "provenance": {
            "versions": {
                "glidereg": __version__,
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in _PACKAGES},
            },
            "system": f"{platform.system()} {platform.machine()}",
            "device": device,
            "threads": threads,
            "seed": settings.seed,
            "settings": shareable_settings(settings),
            "initial_transform_4x4": result.initial.tolist(),
            "inputs": {
                role: {
                    "sha256": v.sha256,
                    "geometry": v.grid.to_dict(),
                    "notes": without_names_in(v.notes),
                }
                for role, v in volumes.items()
            },
            "field_geometry": result.field.grid.to_dict(),
            "units": "mm; CT intensities in HU",
            "frame": "LPS mm, fixed to moving",
        },
    }


def describe_encoder(encoder: Encoder | None) -> dict:
    """Name, hash of the weights, and whether they were trained (not random)."""
    if encoder is None:
        return {"name": "none", "weights_sha256": None, "trained": False}
    return {
        "name": encoder.name,
        "weights_sha256": encoder.weights_sha256,
        "trained": encoder.trained,
    }


def shareable_settings(settings: Settings) -> dict:
    """The settings without paths: folder names often hold the names of patients or users."""
    data = settings.to_dict()
    if data["initial"] not in ("auto", "none"):
        data["initial"] = "file"
    if data["features"]["weights"]:
        data["features"]["weights"] = "file"
    for name, value in data["method_options"].items():
        if isinstance(value, str) and ("/" in value or "\\" in value):
            data["method_options"][name] = "file"
    return data
