"""One method on one pair in this process: ``python -m benchmarks.run_one METHOD FOLDER THREADS``.

Reads the pair from FOLDER, writes ``field.mha`` and ``cost.json`` there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.cost import cpu_seconds, peak_memory_mb
from benchmarks.images import COMMON


def main(name: str, folder: Path, threads: int) -> None:
    """Only the registration is timed: images are read and packages imported before."""
    import SimpleITK as sitk
    import torch

    from benchmarks.methods import METHODS

    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    register = METHODS[name].load()
    images = [sitk.ReadImage(str(folder / file)) for file in COMMON]
    before, started = cpu_seconds(), time.monotonic()
    field = register(*images, folder)
    cost = {
        "wall_s": time.monotonic() - started,
        "cpu_s": cpu_seconds() - before,
        "peak_mb": peak_memory_mb(),
    }
    sitk.WriteImage(sitk.Cast(field, sitk.sitkVectorFloat32), str(folder / "field.mha"))
    (folder / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # some packages crash while they are unloaded; everything is written


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
