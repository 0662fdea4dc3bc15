"""What a benchmark leaves behind when a run takes too long, is cancelled or told to end: nothing
that runs, and no file that names folders of this machine. Also what a run costs, programs counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from GlideRegLib.benchmark import runner
from GlideRegLib.benchmark.runner import BenchmarkJob, plan_runs, run_benchmark
from GlideRegLib.errors import Cancelled
from GlideRegLib.progress import Progress
from GlideRegLib.sample_data.phantom import make_phantom_pair
from GlideRegLib.settings import Settings, with_changes

QUICK = with_changes(
    Settings.preset("fast"), threads=1, features={"encoder": "none"}, grid={"spacing_mm": 8.0}
)
QUICK = with_changes(QUICK, initial="none", confidence=False)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="stand-ins are scripts; signals")

#: Starts a process of its own and tells of it; both would go on for a minute.
SLEEPER = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
with open({file!r} + ".part", "w") as stream:
    stream.write(f"{{os.getpid()}} {{child.pid}}")
os.replace({file!r} + ".part", {file!r})
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchmarkJob:
    """deeds, in whose place a program sleeps; ``told`` in the folder says who does."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "deedsBCV"
    body = textwrap.dedent(SLEEPER.format(file=str(tmp_path / "told")))
    program.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    make_phantom_pair(size=(24, 24, 24), spacing=(12.0,) * 3, amplitude=10.0).save(tmp_path)
    table = tmp_path / "mine.csv"
    table.write_text("id,fixed,moving\ngood,fixed.nii.gz,moving.nii.gz\n", encoding="utf-8")
    return BenchmarkJob((str(table),), ("deeds",), str(tmp_path / "out"), QUICK)


def gone(process: int, seconds: float = 10.0) -> bool:
    """Whether a process ends in time, or only waits to be collected."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def assert_nothing_is_left(folder: Path) -> None:
    for process in map(int, (folder / "told").read_text(encoding="utf-8").split()):
        assert gone(process), f"process {process} goes on"
    assert list(folder.rglob("job.json")) == []


def test_a_run_over_its_limit_takes_its_programs_with_it(
    job: BenchmarkJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> float:  # two hours are over once the program sleeps
        return 7200.0 if (tmp_path / "told").exists() else 0.0

    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    (record,) = run_benchmark(job)
    assert record["problem"] == "did not end within 3600 s"
    assert_nothing_is_left(tmp_path)


def test_being_told_to_end_takes_runs_and_programs_with_it(
    job: BenchmarkJob, tmp_path: Path
) -> None:
    """Cancelling goes the same way."""
    before = signal.getsignal(signal.SIGTERM)

    def tell() -> bool:  # asked in the main thread
        if (tmp_path / "told").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with pytest.raises(Cancelled):
        run_benchmark(job, Progress(should_cancel=tell))
    assert_nothing_is_left(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_GRACE", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code = deaf + SLEEPER.format(file=str(tmp_path / "told"))
    child = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "told").exists():
        time.sleep(0.02)
    runner._end(child)
    assert child.returncode == -signal.SIGKILL
    assert_nothing_is_left(tmp_path)


def test_no_run_profits_from_what_another_one_encoded(job: BenchmarkJob) -> None:
    caching = replace(job, settings=with_changes(QUICK, features={"cache": True}))
    (run,) = plan_runs(caching, Progress())
    assert run.content["settings"]["features"]["cache"] is False


def test_memory_of_a_method_is_that_of_its_program_when_that_is_more() -> None:
    code = """
    import subprocess, sys
    from GlideRegLib.benchmark.run_one import peak_memory_mb
    from GlideRegLib.methods import METHODS
    hungry = "x = b'1' * (600 * 2**20)"
    before = peak_memory_mb(METHODS["deeds"])
    subprocess.run([sys.executable, "-c", hungry], check=True)
    print(before, peak_memory_mb(METHODS["deeds"]), peak_memory_mb(METHODS["convexadam"]))
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    before, with_program, alone = map(float, printed.split())
    assert before < 500 and alone < 500
    assert 600 < with_program < 700
