"""What the files of the worker's jobs have in common: JSON with a task and known names."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields
from typing import Any

from .errors import SettingsError


def as_job_text(task: str, job: Any) -> str:
    """A job (dataclass) as text for ``job.json``."""
    return json.dumps({"task": task, **asdict(job)}, indent=2)


def job_values(text: str, task: str, kind: type) -> dict[str, Any]:
    """The values of ``job.json`` for the dataclass ``kind``, still plain; lists become tuples.

    Fields without a default are required. Raises :class:`SettingsError` with one sentence.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"The job file is not valid JSON ({error}).") from error
    if not isinstance(data, dict) or data.pop("task", None) != task:
        raise SettingsError(f'The job file must be a JSON object with "task": "{task}".')
    known = {f.name: f for f in fields(kind)}
    needed = [
        name
        for name, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and not data.get(name)
    ]
    unknown = sorted(set(data) - set(known))
    if needed or unknown:
        said = [f"lacks {', '.join(needed)}"] if needed else []
        said += [f"has unknown names: {', '.join(unknown)}"] if unknown else []
        raise SettingsError(
            f"The job file {'; '.join(said)}. Known are {', '.join(sorted(known))}."
        )
    return {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
