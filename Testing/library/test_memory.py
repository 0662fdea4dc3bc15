"""Memory: predicted before the run, the plan stepped down to fit, a real shortage survived."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from GlideRegLib import memory, pipeline
from GlideRegLib.errors import MemoryExceededError
from GlideRegLib.geometry import Grid
from GlideRegLib.memory import Budget, Sizes, ladder, predicted_mb
from GlideRegLib.progress import Progress
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import Settings, with_changes

LOCAL = {"encoder": "none"}


def chosen(preset: str = "standard", **changes: object) -> Settings:
    return with_changes(Settings.preset(preset), device="cpu", threads=1, **changes)


def quick(preset: str, spacing: float, **changes: object) -> Settings:
    """Few iterations: they cost time, not memory."""
    settings = chosen(preset, features=LOCAL, grid={"spacing_mm": spacing}, **changes)
    levels = settings.refine.levels
    levels = tuple(replace(level, iterations=1, cg_iterations=2) for level in levels)
    refine = replace(settings.refine, levels=levels)
    return replace(settings, refine=refine, convex=replace(settings.convex, consistency_steps=1))


def thorax(settings: Settings) -> Sizes:
    """A chest CT of 350 x 300 x 320 mm, and the working grid of some settings on it."""
    image = Grid((350, 300, 160), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    working = image.covering_box(image.corners(), settings.grid.spacing_mm, 16)
    return Sizes(image, image, working)


# --- prediction -----------------------------------------------------------------------------------

RUN = """
import json, sys
from GlideRegLib import machine
machine.configure_process()
from GlideRegLib import Settings, read_volume, register
fixed, moving = (read_volume(path) for path in sys.argv[1:3])
result = register(fixed, moving, Settings.from_dict(json.loads(sys.argv[3])))
print(json.dumps(result.report["cost"]))
"""


@pytest.mark.parametrize(("preset", "spacing"), [("fast", 4.0), ("standard", 2.5)])
def test_the_peak_of_a_real_run_is_predicted_within_a_quarter(
    preset: str, spacing: float, small_files: dict[str, Path]
) -> None:
    """In a process of its own: the peak of this one is that of all tests before."""
    images = [str(small_files["fixed"]), str(small_files["moving"])]
    settings = json.dumps(quick(preset, spacing, initial="none").to_dict())
    done = subprocess.run(
        [sys.executable, "-c", RUN, *images, settings], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout.splitlines()[-1])
    assert cost["predicted_memory_mb"] == pytest.approx(cost["peak_memory_mb"], rel=0.25)
    assert cost["left_out_for_memory"] == []


def test_finer_grids_encoders_and_larger_images_need_more() -> None:
    fast, standard, fine = (
        predicted_mb(s, thorax(s))
        for s in (chosen(p, features=LOCAL) for p in ("fast", "standard", "fine"))
    )
    assert fast < standard < fine
    both = chosen("fast", features={"encoder": "mobile_sam"})
    assert predicted_mb(both, thorax(both)) > fast


# --- the ladder -----------------------------------------------------------------------------------


def test_as_many_slices_are_encoded_at_once_as_the_prediction_assumes() -> None:
    from GlideRegLib.features.slices import BATCH

    assert memory.BATCH == BATCH


def test_the_ladder_begins_with_what_costs_least_accuracy() -> None:
    settings = chosen("standard", features={"encoder": "mobile_sam"})
    rungs = list(ladder(settings))
    first, second, third = (rung for rung, _ in rungs[:3])
    assert [level.pooling for level in first.refine.levels] == [4, 2]
    assert second.grid.spacing_mm == pytest.approx(1.5 * 4 / 3)
    assert third.features.cell_mm == 2 * settings.features.cell_mm
    for rung, sentence in rungs:
        rung.check()
        assert sentence.strip(".") == sentence
    assert rungs[-1][0].grid.spacing_mm <= memory.COARSEST_SPACING_MM


@pytest.mark.parametrize("preset", ["fast", "standard", "fine", "paper"])
@pytest.mark.parametrize("encoder", ["none", "mobile_sam"])
def test_every_rung_needs_hardly_more_than_the_one_before(preset: str, encoder: str) -> None:
    settings = chosen(preset, features={"encoder": encoder})
    rungs = [settings, *(rung for rung, _ in ladder(settings))]
    needs = [predicted_mb(rung, thorax(rung)) for rung in rungs]
    for before, after in itertools.pairwise(needs):
        assert after < 1.2 * before  # grids are rounded up to multiples of 16 voxels
    assert needs[-1] < needs[0]


def test_the_plan_is_stepped_down_until_it_fits_and_each_step_is_said() -> None:
    settings = chosen("fine", features=LOCAL)
    limit = 0.5 * predicted_mb(settings, thorax(settings))
    progress = Progress()
    budget = Budget(replace(settings, memory_limit_mb=limit), "cpu", progress)
    budget.fit(thorax)
    assert budget.predicted <= limit
    assert len(budget.steps) >= 1
    assert [level for level, _ in progress.messages] == ["warning"] * len(budget.steps)
    assert budget.report()["left_out_for_memory"] == budget.steps
    assert budget.settings.refine.levels[-1].pooling == 2


def test_what_fits_is_left_as_it_is() -> None:
    settings = chosen("fine", features=LOCAL, memory_limit_mb=1e6)
    budget = Budget(settings, "cpu", Progress())
    budget.fit(thorax)
    assert budget.settings is settings
    assert budget.steps == []


# --- whole runs -----------------------------------------------------------------------------------


def failing(times: int, error: Exception) -> object:
    """The optimizer, which runs out of memory the first few times."""
    original, calls = pipeline._optimize, []

    def optimize(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return original(*arguments, **named)

    return optimize


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryExceededError("The GPU has no memory for 16 slices."),
    ],
)
def test_a_real_shortage_steps_down_once_more_instead_of_failing(
    error: Exception, small_pair: PhantomPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_optimize", failing(2, error))
    settings = quick("standard", 4.0, initial="none")
    report = pipeline.register(small_pair.fixed, small_pair.moving, settings).report
    assert len(report["cost"]["left_out_for_memory"]) == 2
    assert report["provenance"]["settings"]["grid"]["spacing_mm"] == pytest.approx(5.33)
    warnings = [text for text in report["messages"] if text.startswith("warning: The memory ran")]
    assert len(warnings) == 2


def test_another_fault_of_the_optimizer_is_not_mistaken_for_a_shortage(
    small_pair: PhantomPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_optimize", failing(1, RuntimeError("shapes do not match")))
    settings = quick("fast", 5.0, initial="none")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        pipeline.register(small_pair.fixed, small_pair.moving, settings)


def test_when_nothing_is_left_to_give_up_it_ends_in_a_sentence(
    small_pair: PhantomPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_optimize", failing(99, MemoryError()))
    settings = quick("fast", 5.0, initial="none")
    with pytest.raises(MemoryExceededError, match="does not fit into memory"):
        pipeline.register(small_pair.fixed, small_pair.moving, settings)


def test_a_limit_that_nothing_fits_is_one_clear_sentence(small_pair: PhantomPair) -> None:
    settings = quick("fast", 4.0, initial="none", memory_limit_mb=50.0)
    with pytest.raises(MemoryExceededError, match="50 MB may be used") as failure:
        pipeline.register(small_pair.fixed, small_pair.moving, settings)
    assert str(failure.value).count(". ") == 0


def test_the_peak_is_this_processs_own_not_that_of_the_one_that_started_it() -> None:
    """getrusage on Linux begins with the memory of the parent."""
    ballast = bytearray(600 * 2**20)
    ballast[:: 2**12] = b"x" * len(ballast[:: 2**12])
    code = "from GlideRegLib.machine import peak_memory_mb; print(peak_memory_mb())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert float(output) < 300
    del ballast
