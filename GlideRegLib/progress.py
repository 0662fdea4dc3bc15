"""One callback through which every long stage reports, and through which it is cancelled.

A :class:`Progress` is handed down the call chain. Code that works for longer than a moment calls
:meth:`Progress.update` between its steps (at least once a second); that call raises
:class:`~GlideRegLib.errors.Cancelled` when the user has asked to stop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import Cancelled

logger = logging.getLogger("GlideReg")
logger.addHandler(logging.NullHandler())  # silent unless the application wants it


@dataclass(frozen=True)
class ProgressEvent:
    """What a listener is told.

    ``kind`` is "stage" (a stage begins), "progress" or "message". ``fraction`` is the share of the
    whole run done, 0 to 1; ``stage_fraction`` the share of the stage; ``seconds_left`` an estimate
    for the whole run or None while nothing is known. ``level`` ("info" | "warning") and ``text``
    belong to messages.
    """

    kind: str
    stage: str
    fraction: float = 0.0
    stage_fraction: float = 0.0
    seconds_left: float | None = None
    level: str = "info"
    text: str = ""


class Progress:
    """Reports stages, fractions and messages to a callback, and carries the wish to cancel.

    ``plan`` gives the expected share of each stage in the run's time, in any unit; stages that are
    not in the plan count nothing. ``seconds`` collects the wall time of each stage for the result.
    """

    def __init__(
        self,
        callback: Callable[[ProgressEvent], None] | None = None,
        should_cancel: Callable[[], bool] | None = None,
        plan: dict[str, float] | None = None,
    ) -> None:
        self._callback = callback or (lambda event: None)
        self._should_cancel = should_cancel or (lambda: False)
        self._plan = dict(plan or {})
        self._finished = 0.0
        self._stage = ""
        self._started = time.monotonic()
        self._stage_started = self._started
        self.seconds: dict[str, float] = {}
        self.messages: list[tuple[str, str]] = []

    def set_plan(self, plan: dict[str, float]) -> None:
        """Replaces the expected shares (any unit), once more is known about the run."""
        self._plan = dict(plan)

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """A named stage of the run; its wall seconds are added to ``seconds[name]``."""
        self.check()
        outer, outer_started = self._stage, self._stage_started
        self._stage, self._stage_started = name, time.monotonic()
        self._callback(ProgressEvent("stage", name, *self._estimate(0.0)))
        try:
            yield self
        finally:
            elapsed = time.monotonic() - self._stage_started
            self._finished += self._share_of(name)
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
            self._stage, self._stage_started = outer, outer_started

    def update(self, stage_fraction: float) -> None:
        """Says how much of the current stage is done (0 to 1). Raises Cancelled when asked to."""
        self.check()
        self._callback(ProgressEvent("progress", self._stage, *self._estimate(stage_fraction)))

    def message(self, text: str, level: str = "info") -> None:
        """A sentence for the user. It must never hold a patient's name."""
        self.messages.append((level, text))
        logger.log(logging.WARNING if level == "warning" else logging.INFO, text)
        self._callback(ProgressEvent("message", self._stage, level=level, text=text))

    def cancel_wanted(self) -> bool:
        """Whether the user has asked to stop."""
        return self._should_cancel()

    def check(self) -> None:
        """Raises Cancelled when the user has asked to stop."""
        if self._should_cancel():
            raise Cancelled("The run was cancelled; nothing was written.")

    def _share_of(self, stage: str) -> float:
        """The planned share of a stage; one that comes back has had it."""
        return 0.0 if stage in self.seconds else self._plan.get(stage, 0.0)

    def _estimate(self, stage_fraction: float) -> tuple[float, float, float | None]:
        share = self._share_of(self._stage)
        total = sum(self._plan.values())
        if total <= 0:
            return 0.0, stage_fraction, None
        done = min((self._finished + share * stage_fraction) / total, 1.0)
        elapsed = time.monotonic() - self._started
        # The first percents say little about the speed of the machine.
        left = elapsed * (1 - done) / done if done > 0.02 else None
        return done, stage_fraction, left
