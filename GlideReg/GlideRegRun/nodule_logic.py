"""The nodule half of GlideRegLogic: tracking, decisions, export; from the console and the panel."""

from pathlib import Path

from GlideRegScene.nodes import isInScene
from GlideRegScene.nodules import decisions, tables, views
from GlideRegScene.nodules.dates import keptDays
from GlideRegScene.nodules.request import TrackRequest
from GlideRegScene.transforms import volumeOf

from .tracking import TrackingRun


class NoduleLogic:
    """What GlideRegLogic can do with nodules. It needs ``launch`` and ``library`` of its class.

    Positions are world RAS mm. Nodules are named by the identifier of their track (the column
    *Track* of the table node). All methods raise GlideRegError, one sentence.
    """

    def track(
        self,
        transform,
        priorNodules,
        currentNodules=None,
        fixedVolume=None,
        movingVolume=None,
        blocking: bool = True,
        onProgress=None,
        onFinished=None,
        **options,
    ):
        """Follows the nodules of the prior scan into the current one.

        :param transform: the result of a registration, or any transform node, fixed to moving. The
            volumes need to be given only for transforms of others.
        :param priorNodules: point list, segmentation or label map; ``currentNodules`` alike, or
            None: nothing to match against, or an empty point list: there are none.
        :param options: ``prior`` ("moving" or "fixed"), ``segment``, ``refine``,
            ``referenceThresholds``, ``days``, ``table`` (of an earlier run): see
            :class:`TrackRequest`.
        :return: a vtkMRMLTableNode; None when it was cancelled. Without ``blocking`` the running
            :class:`TrackingRun` at once.
        """
        roles = (("fixed", fixedVolume), ("moving", movingVolume))
        fixed, moving = (volume or volumeOf(transform, role) for role, volume in roles)
        request = TrackRequest(fixed, moving, transform, priorNodules, currentNodules, **options)
        return self.runTracking(request, blocking, onProgress, onFinished)

    def trackUsingParameterNode(self, parameters, blocking=True, onProgress=None, onFinished=None):
        """The same with the choices of the panel; the table is remembered in the parameter node."""

        def remember(run: TrackingRun) -> None:
            if run.result is not None and isInScene(parameters.parameterNode):
                parameters.noduleTable = run.result.table
            if onFinished is not None:
                onFinished(run)

        request = self.trackRequestFrom(parameters)
        return self.runTracking(request, blocking, onProgress, remember)

    @staticmethod
    def trackRequestFrom(parameters) -> TrackRequest:
        """The choices of the panel as a request."""
        return TrackRequest(
            parameters.fixedVolume,
            parameters.movingVolume,
            parameters.noduleTransform or parameters.transform,
            parameters.priorNodules,
            parameters.currentNodules,
            prior=parameters.priorScan.value,
            segment=parameters.segmentNodules,
            refine=parameters.refineNodules,
            referenceThresholds=parameters.referenceThresholds,
            days=keptDays(parameters),
            table=parameters.noduleTable,
        )

    def runTracking(self, request: TrackRequest, blocking: bool, onProgress=None, onFinished=None):
        """Runs a request; see :meth:`track`."""
        run = TrackingRun(request, self.library, onProgress, onFinished)
        self.launch(run, blocking)
        if not blocking:
            return run
        return run.result.table if run.result is not None else None

    # --- the rows ---------------------------------------------------------------------------------

    @staticmethod
    def nodules(table):
        """The rows of a table as the library's Tracking: every number, LPS mm."""
        return tables.trackingOf(table)

    @staticmethod
    def confirmNodule(table, identifier: str) -> None:
        """The clinician agrees with a row."""
        decisions.confirm(table, identifier)

    @staticmethod
    def correctNodule(table, identifier: str, position) -> None:
        """The nodule lies there in the current scan; it is measured anew. On another nodule of the
        table the row takes that one, and the one that it had becomes new."""
        decisions.correct(table, identifier, position)

    @staticmethod
    def separateNodule(table, identifier: str) -> None:
        """The pair is none: its prior nodule is resolved, its current one new."""
        decisions.separate(table, identifier)

    @staticmethod
    def rejectNodule(table, identifier: str) -> None:
        """The clinician refuses a row."""
        decisions.reject(table, identifier)

    @staticmethod
    def reopenNodule(table, identifier: str) -> None:
        """Takes the last decision about a row back."""
        decisions.reopen(table, identifier)

    @staticmethod
    def addNodule(table, position, name: str = "") -> str:
        """A new nodule in the current scan; returns its identifier, also of one that is there."""
        return decisions.add(table, position, name)

    @staticmethod
    def jumpToNodule(table, identifier: str) -> None:
        """Centers all slice views on a nodule, each in the scan that it shows."""
        views.jumpTo(table, identifier)

    @staticmethod
    def exportNodules(table, path: str | Path) -> None:
        """Writes the table as .csv (units in the header, LPS and RAS) or .json."""
        from GlideRegLib.tracking.files import write_tracking

        write_tracking(path, tables.trackingOf(table))
