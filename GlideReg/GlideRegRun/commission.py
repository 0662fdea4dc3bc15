"""Commissioning from Slicer: known motions on a CT of the user's, registered back, and a report."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from GlideRegScene.inputs import CollectedInputs, worldSource

from .dependencies import ensureInstalled
from .registration import Registration

#: The CT in the folder of the run: neutral, it names no patient.
_NAME = "ct.mha"
#: What only the page of the report needs.
_REPORT_REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "report-requirements.txt"


@dataclass
class CommissionRequest:
    """One commissioning: the CT, the folder for the report and the error maps, the library's
    settings as plain values, and the names of the cases (empty: all)."""

    volume: object
    folder: Path
    settings: dict
    cases: tuple[str, ...] = ()

    def problem(self) -> str:
        """What is missing or contradictory, as one sentence; "" when it can be run."""
        if self.volume is None or self.volume.GetImageData() is None:
            return "Choose a CT that holds voxels."
        return ""


class CommissionRun(Registration):
    """A run of the worker for a :class:`CommissionRequest`; ``result`` is commission.json."""

    kind = "commissioning"

    def _collect(self, folder: Path) -> CollectedInputs:
        source, _resampled = worldSource(self.request.volume)
        path = str(folder / _NAME)
        job = {"task": "commission", "image": path, "settings": self.request.settings}
        if self.request.cases:
            job["cases"] = list(self.request.cases)
        return CollectedInputs(job, None, [partial(_writeImage, source, path)])

    def _read(self, folder: Path) -> dict:
        """The report, after all files were moved to where the user wants them, in the thread that
        waits for the worker."""
        from GlideRegLib.wholefolder import whole_folder

        report = json.loads((folder / "commission.json").read_text(encoding="utf-8"))
        if not self._stopped:
            with whole_folder(self.request.folder) as partial_:
                for path in sorted(folder.iterdir()):
                    shutil.move(str(path), str(partial_ / path.name))
        return report

    def _import(self) -> dict:
        return self._files

    def _readable(self, text: str) -> str:
        return super()._readable(text.replace(f"'{self._folder / _NAME}'", "The CT"))


def _writeImage(source, path: str) -> None:
    sitk.WriteImage(source(), path)


class CommissionLogic:
    """What a physicist runs before using the tool. It needs ``launch`` and ``library``."""

    def commission(
        self,
        volumeNode,
        outputFolder: str | Path,
        cases: tuple[str, ...] = (),
        preset: str = "standard",
        settings: dict | None = None,
        blocking: bool = True,
        onProgress=None,
        onFinished=None,
    ):
        """Moves a CT by known motions, registers it back, and compares with the truth.

        Writes ``report.html``, ``commission.json`` and an error map (mm) for each case, all or
        none. Nothing in the scene changes.

        :param cases: of "rigid", "small", "medium", "large"; empty: all. About as long as one
            registration each.
        :param preset: what is commissioned; ``settings`` as in :meth:`GlideRegLogic.register`.
        :return: the content of commission.json (its "verdict" first of all); None when it was
            cancelled. Without ``blocking`` the running :class:`CommissionRun` at once.
        :raises GlideRegError: one sentence; MR is refused.
        """
        from GlideRegLib.job import check_output
        from GlideRegLib.settings import Settings

        chosen = Settings.from_dict({"preset_name": preset, **(settings or {})})
        chosen.check()
        check_output(Path(outputFolder))
        request = CommissionRequest(volumeNode, Path(outputFolder), chosen.to_dict(), tuple(cases))
        if not request.problem():
            ensureInstalled(_REPORT_REQUIREMENTS)
        run = CommissionRun(request, self.library, onProgress, onFinished)
        self.launch(run, blocking)
        return run.result if blocking else run
