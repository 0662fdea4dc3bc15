"""Made once what lies beside this file: our phantom registered by elastix (about a minute).

    pip install itk-elastix                  # it was 0.25.4, Apache-2.0; beside GlideReg
    PYTHONPATH=.:Testing:Testing/library python Testing/library/data/elastix/make.py

Everything is our own: the phantom is drawn by GlideReg, the parameters are elastix' defaults.
``TransformParameters.1-Composite.h5``: affine, then B-spline, as elastix itself writes it for ITK.
``points.csv``: where transformix sends the phantom's fixed landmarks, LPS mm, in their order.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import itk
import numpy as np
from small_pair import make_small_pair

NAME = "TransformParameters.1-Composite.h5"


def main() -> None:
    here, pair = Path(__file__).parent, make_small_pair()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair.save(folder)
        points = folder / "points.pts"
        rows = "\n".join(" ".join(map(str, p)) for p in pair.fixed_landmarks.tolist())
        points.write_text(f"point\n{len(pair.fixed_landmarks)}\n{rows}\n", encoding="utf-8")
        fixed, moving = (
            itk.imread(str(folder / f"{n}.nii.gz"), itk.F) for n in ("fixed", "moving")
        )
        quiet = {"output_directory": str(folder), "log_to_console": False}
        _, found = itk.elastix_registration_method(
            fixed, moving, parameter_object=_parameters(), **quiet
        )
        itk.transformix_filter(moving, found, fixed_point_set_file_name=str(points), **quiet)
        shutil.copy(folder / NAME, here / NAME)
        text = (folder / "outputpoints.txt").read_text(encoding="utf-8")
    moved = [row.split() for row in re.findall(r"OutputPoint = \[ ([^\]]*)\]", text)]
    np.savetxt(here / "points.csv", np.array(moved, float), fmt="%.6f", delimiter=",")


def _parameters() -> itk.ParameterObject:
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    parameters = itk.ParameterObject.New()
    for chosen in (
        parameters.GetDefaultParameterMap("affine", 3),
        parameters.GetDefaultParameterMap("bspline", 3, 40.0),  # mm between the last control points
    ):
        chosen["MaximumNumberOfIterations"] = ("250",)
        chosen["RandomSeed"] = ("1",)
        chosen["WriteITKCompositeTransform"] = ("true",)
        chosen["ITKTransformOutputFileNameExtension"] = ("h5",)
        parameters.AddParameterMap(chosen)
    return parameters


if __name__ == "__main__":
    main()
