"""A run from click to end, with the real worker: progress, cancel, crash, leaving, closing."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import slicer
from driving import FinishedRun, OpenModule

from slicer_harness.slicer_parts import dialogs, installer

#: The first stages: the worker is there, and far from its end.
WORKING = ("Reading", "Preparing", "Aligning")


def _nodeIds() -> set[str]:
    scene = slicer.mrmlScene
    return {scene.GetNthNode(k).GetID() for k in range(scene.GetNumberOfNodes())}


def _runFolders() -> list[Path]:
    return list(Path(slicer.app.temporaryPath).glob("GlideReg-*"))


def _start(module: OpenModule, pair: Any) -> None:
    """Presses Register on a run that is long enough to be interrupted, and waits for the worker."""
    module.choose(pair)
    module.parameters.spacing = 1.0
    module.click("applyButton")
    module.waitUntil(lambda: module.ui.statusLabel.text.startswith(WORKING))


def _workers() -> list[psutil.Process]:
    """Processes of a run, also those that it started."""
    return [p for p in psutil.Process().children(recursive=True) if p.is_running()]


def test_a_run_goes_from_click_to_result(finishedRun: FinishedRun) -> None:
    texts = finishedRun.resultTexts
    before, after, n = re.fullmatch(
        r"([\d.]+) → ([\d.]+) mm \((\d+) landmarks\)", texts["treMean"]
    ).groups()
    assert float(before) > 10 and 1.0 < float(after) < 3.0 and n == "3"
    median = float(texts["treMedian"].split("→")[1].split()[0])
    assert median < 1.0, "two of the three landmarks correspond"
    label, error = re.fullmatch(r"(\w+): ([\d.]+) mm", texts["worst"]).groups()
    assert label == "C" and 4.0 < float(error) < 6.0
    assert texts["folding"] == "0 % in the body, 0 % in the grid"
    low, high = re.fullmatch(r"([\d.]+) to ([\d.]+) \(1 is no change\)", texts["jacobian"]).groups()
    assert 0 < float(low) < 1 < float(high)
    assert re.fullmatch(r"\d+ s on CPU", texts["time"])
    assert texts["encoderUsed"] == "Fast, no encoder, CT"
    assert (finishedRun.overlay, finishedRun.opacity) == ("after", 0.5)
    assert re.fullmatch(r"Registered in \d+ s\.", finishedRun.statusLines[-1])


def test_progress_names_stages_percent_and_time_left(finishedRun: FinishedRun) -> None:
    lines = finishedRun.statusLines
    refining = [line for line in lines if line.startswith("Refining")]
    assert len(refining) > 3, lines
    pattern = r"Refining · \d+ %( · (about \d+ s left|a few seconds left))?"
    assert all(re.fullmatch(pattern, line) for line in refining), refining
    stages = [line.split(" ·")[0] for line in lines]
    assert stages.index("Preparing") < stages.index("Refining")
    assert finishedRun.percents == sorted(finishedRun.percents) and max(finishedRun.percents) > 80


def test_the_application_stays_alive_during_a_run(finishedRun: FinishedRun) -> None:
    print(f"longest gaps: {finishedRun.longestGapAfterStart:.2f}, {finishedRun.longestGap:.2f} s")
    assert finishedRun.longestGapAfterStart < 1.0, "reading the result included"
    assert finishedRun.longestGap < 2.0, "writing the inputs included"


def test_cancel_ends_the_run_within_two_seconds_and_leaves_nothing(
    module: OpenModule, pair: Any
) -> None:
    before = _nodeIds() | {module.parameters.parameterNode.GetID()}
    _start(module, pair)
    assert module.ui.cancelButton.visible and _runFolders() and _workers()
    started = time.monotonic()
    module.click("cancelButton")
    assert module.ui.statusLabel.text == "Cancelling…"
    module.waitForTheRun(5)
    took = time.monotonic() - started
    print(f"cancelled in {took:.2f} s")
    assert took < 2.0
    assert module.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert module.ui.applyButton.enabled and not module.ui.cancelButton.visible
    assert not module.ui.progressBar.visible
    assert _nodeIds() == before and not _runFolders() and not _workers()
    assert module.ui.resultHint.visible and not dialogs.shown


def test_only_one_run_at_a_time(module: OpenModule, pair: Any) -> None:
    _start(module, pair)
    run = module.logic.running
    assert (module.ui.applyButton.enabled, module.ui.applyButton.text) == (False, "Registering…")
    module.click("applyButton")
    assert module.logic.running is run and len(_runFolders()) == 1
    module.panel.run.apply()  # whatever calls it
    assert module.logic.running is run and len(_runFolders()) == 1
    assert not dialogs.shown
    module.click("cancelButton")
    module.waitForTheRun(5)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [(signal.SIGKILL, "memory ran out"), (signal.SIGSEGV, "ended unexpectedly")],
    ids=["killed", "crashed"],
)
def test_a_worker_that_dies_gives_a_sentence_and_a_log(
    module: OpenModule, pair: Any, sent: signal.Signals, sentence: str
) -> None:
    before = _nodeIds() | {module.parameters.parameterNode.GetID()}
    _start(module, pair)
    assert not module.ui.logButton.visible
    for process in _workers():
        os.kill(process.pid, sent)
    module.waitForTheRun(5)
    assert sentence in module.ui.statusLabel.text
    assert "color" in module.ui.statusLabel.styleSheet
    assert dialogs.shown == [("errorDisplay", module.ui.statusLabel.text)]
    assert _nodeIds() == before and not _runFolders()
    assert module.ui.applyButton.enabled
    module.click("logButton")
    shown = module.panel.run._log._text.toPlainText()
    assert "Reading" in shown and sentence in shown
    assert "Fixed" not in shown, "the log names no nodes"


def test_the_log_can_be_copied(module: OpenModule) -> None:
    from PySide6 import QtWidgets

    from GlideRegPanel.messages import LogWindow

    window = LogWindow()
    window.show(["Reading (0 %)", "Saving (100 %)"])
    buttons = window._dialog.findChildren("QPushButton")
    next(button for button in buttons if button.text == "Copy").click()
    assert QtWidgets.QApplication.clipboard().text() == "Reading (0 %)\nSaving (100 %)"
    next(button for button in buttons if button.text == "Close").click()
    assert not window._dialog.visible


def test_a_declined_installation_runs_nothing(module: OpenModule, pair: Any) -> None:
    installer.outcome = RuntimeError("declined")
    module.choose(pair)
    module.click("applyButton")
    assert module.logic.running is None and not _runFolders()
    assert module.ui.statusLabel.text == (
        "GlideReg needs its Python packages; nothing was installed and nothing was run."
    )
    assert dialogs.shown == []  # the user has just answered a dialog
    assert module.ui.applyButton.enabled and not module.ui.progressBar.visible


def test_a_click_while_packages_are_asked_for_starts_nothing_else(
    module: OpenModule, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(requirements: Any, **options: Any) -> None:
        asked.append(module.ui.applyButton.text)
        module.click("applyButton")  # the question keeps the event loop alive
        raise RuntimeError("declined")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", ask)
    module.choose(pair)
    module.click("applyButton")
    assert asked == ["Registering…"]


def test_inputs_that_do_not_fit_give_one_sentence(module: OpenModule, pair: Any) -> None:
    pair.movingPoints.RemoveNthControlPoint(0)
    module.choose(pair)
    module.click("applyButton")
    assert module.ui.statusLabel.text.startswith("There are 3 fixed and 2 moving landmarks")
    assert dialogs.shown == [("errorDisplay", module.ui.statusLabel.text)]
    assert not _runFolders()


def test_an_unexpected_error_is_one_sentence_and_is_logged(
    module: OpenModule,
    pair: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_inputs: Any, **_options: Any) -> None:
        raise ZeroDivisionError("inside")

    module.choose(pair)
    monkeypatch.setattr(module.logic, "registerUsingParameterNode", fail)
    module.click("applyButton")
    text = "Something unexpected went wrong (ZeroDivisionError)"
    assert dialogs.shown[0][0] == "errorDisplay" and dialogs.shown[0][1].startswith(text)
    assert "Traceback" not in dialogs.shown[0][1]
    assert len(caplog.records) == 1 and caplog.records[0].exc_info


def test_a_run_goes_on_when_the_module_is_left_and_is_shown_on_return(
    module: OpenModule, pair: Any
) -> None:
    module.choose(pair)
    module.click("applyButton")
    module.waitUntil(lambda: module.ui.statusLabel.text.startswith(WORKING))
    module.widget.exit()
    assert module.parameters is None and module.logic.running is not None
    module.widget.enter()
    assert module.ui.cancelButton.visible and module.ui.applyButton.text == "Registering…"
    assert " %" in module.ui.statusLabel.text
    module.widget.exit()
    module.waitForTheRun()
    module.widget.enter()
    module.processEvents()
    assert module.parameters.transform is not None and module.ui.resultContents.visible
    assert module.parameters.warpedVolume is not None
    assert module.ui.statusLabel.text.startswith("Registered in")
    assert module.ui.applyButton.enabled


def test_a_run_from_the_console_is_shown_and_its_end_too(module: OpenModule, pair: Any) -> None:
    settings = {"features": {"encoder": "none"}}
    module.logic.register(pair.fixed, pair.moving, "fast", settings, blocking=False)
    module.choose(pair)
    assert module.ui.cancelButton.visible
    assert module.ui.statusLabel.text == "A registration is running"
    module.click("cancelButton")
    module.waitForTheRun(5)
    module.waitUntil(lambda: module.ui.applyButton.enabled, 2)
    assert not module.ui.cancelButton.visible and module.ui.cancelButton.enabled


def test_closing_the_scene_ends_the_run(module: OpenModule, pair: Any) -> None:
    _start(module, pair)
    slicer.mrmlScene.Clear(0)
    module.processEvents()
    assert module.parameters is not None and module.parameters.fixedVolume is None
    before = _nodeIds()
    module.waitForTheRun(5)
    assert module.ui.applyButton.text == "Choose a fixed volume"
    assert not module.ui.cancelButton.visible and not _runFolders() and not _workers()
    assert _nodeIds() == before and not dialogs.shown


def test_closing_the_application_ends_the_run_at_once(module: OpenModule, pair: Any) -> None:
    _start(module, pair)
    module.widget.cleanup()
    assert module.logic.running is None and not _runFolders() and not _workers()
    assert not module.panel.run._watch.isActive(), "its widgets may be gone"


def test_a_reload_lets_go_of_the_scene(module: OpenModule) -> None:
    import slicer

    scene, panel = slicer.mrmlScene, module.panel
    assert panel.hasObserver(scene, scene.StartCloseEvent, panel._onSceneClosing)
    module.widget.cleanup()
    assert not panel.hasObserver(scene, scene.StartCloseEvent, panel._onSceneClosing)
