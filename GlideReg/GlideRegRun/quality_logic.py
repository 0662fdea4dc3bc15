"""The quality half of GlideRegLogic: assess, jump, report; from the console and the panel."""

from pathlib import Path

from GlideRegScene import display
from GlideRegScene.nodes import isInScene
from GlideRegScene.quality import overlay, tables
from GlideRegScene.quality.request import AssessRequest, remembered

from .assessment import AssessmentRun
from .dependencies import ensureInstalled

#: What only the page of a report needs: asked for when somebody wants one.
_REPORT_REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "report-requirements.txt"


class QualityLogic:
    """What GlideRegLogic can do about trust. It needs ``launch`` and ``library`` of its class.

    All methods raise GlideRegError, one sentence.
    """

    def assess(
        self,
        transform,
        fixedVolume=None,
        movingVolume=None,
        blocking: bool = True,
        onProgress=None,
        onFinished=None,
        **options,
    ):
        """Measures a transform and holds it against a profile of criteria.

        :param transform: the result of a registration, or any transform node, linear or not, fixed
            to moving: under it the moving volume looks registered. The volumes need to be given
            only for transforms of others.
        :param options: ``fixedLandmarks``, ``movingLandmarks``, ``fixedStructures``,
            ``movingStructures`` (segmentations, paired by the names of segments), ``structures``
            (names), ``backward``, ``profile``, ``jacobian``, ``reportFolder``, ``table``: see
            :class:`AssessRequest`.
        :return: a vtkMRMLTableNode; None when it was cancelled. Without ``blocking`` the running
            :class:`AssessmentRun` at once.
        """
        roles = ("Fixed", "Moving")
        given = (fixedVolume, movingVolume)
        volumes = (v or _volumeOf(transform, r) for v, r in zip(given, roles, strict=True))
        request = AssessRequest(*volumes, transform, **options)
        return self.runAssessment(request, blocking, onProgress, onFinished)

    def assessUsingParameterNode(self, parameters, blocking=True, onProgress=None, onFinished=None):
        """The same with the choices of the panel; the table is remembered in the parameter node."""

        def remember(run: AssessmentRun) -> None:
            if run.result is not None and isInScene(parameters.parameterNode):
                parameters.qualityTable = run.result.table
            if onFinished is not None:
                onFinished(run)

        request = self.assessRequestFrom(parameters)
        return self.runAssessment(request, blocking, onProgress, remember)

    @staticmethod
    def assessRequestFrom(parameters) -> AssessRequest:
        """The choices of the panel as a request."""
        leftOut = parameters.qualityLeftOut.split("\n")
        request = AssessRequest(
            parameters.fixedVolume,
            parameters.movingVolume,
            parameters.qualityTransform or parameters.transform,
            parameters.qualityBackward,
            parameters.qualityFixedLandmarks or parameters.fixedLandmarks,
            parameters.qualityMovingLandmarks or parameters.movingLandmarks,
            parameters.qualityFixedStructures,
            parameters.qualityMovingStructures,
            profile=parameters.qualityProfile,
            table=parameters.qualityTable,
        )
        request.structures = [name for name in request.chosen if name not in leftOut]
        return request

    def runAssessment(
        self, request: AssessRequest, blocking=True, onProgress=None, onFinished=None
    ):
        """Runs a request; see :meth:`assess`."""
        if request.reportFolder is not None and not request.problem():
            ensureInstalled(_REPORT_REQUIREMENTS)
        run = AssessmentRun(request, self.library, onProgress, onFinished)
        self.launch(run, blocking)
        if not blocking:
            return run
        return run.result.table if run.result is not None else None

    def exportAssessment(
        self, table, folder: str | Path, blocking=True, onProgress=None, onFinished=None
    ):
        """Writes assessment.html and assessment.json into a folder. What is in the table is
        measured once more for it, and the table shows the numbers of the page."""
        shown = overlay.mapOf(table) is not None
        request = remembered(table, reportFolder=Path(folder), jacobian=shown)
        return self.runAssessment(request, blocking, onProgress, onFinished)

    def mapJacobian(self, table, blocking=True, onProgress=None, onFinished=None):
        """Adds the map of the Jacobian determinant to an assessment that was made without."""
        request = remembered(table, jacobian=True)
        return self.runAssessment(request, blocking, onProgress, onFinished)

    @staticmethod
    def assessment(table):
        """What a table holds as the library's Assessment: every number, LPS mm."""
        return tables.assessmentOf(table)

    @staticmethod
    def jumpToPlace(place) -> None:
        """Centers all slice views on a place of an assessment (LPS mm)."""
        import slicer

        from GlideRegLib.geometry import flip_lps_ras

        display.jumpTo(slicer.mrmlScene, flip_lps_ras(place))

    @classmethod
    def jumpToWorst(cls, table) -> str:
        """Centers all slice views on the worst place of an assessment and says why; "" without."""
        spots = tables.assessmentOf(table).spots
        if not spots:
            return ""
        cls.jumpToPlace(spots[0].place)
        return spots[0].why


def _volumeOf(transform, role: str):
    """The fixed or moving volume that a registration noted at its transform."""
    if transform is None:
        return None
    return transform.GetNodeReference(getattr(transform, f"Get{role}NodeReferenceRole")())
