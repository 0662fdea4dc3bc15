"""One propagation from start to end, and the half of GlideRegLogic that starts it."""

from pathlib import Path

from GlideRegScene.propagation.request import (
    CollectedPropagation,
    PropagateRequest,
    collectPropagation,
)
from GlideRegScene.propagation.results import PropagatedNodes, importPropagation, readPropagation
from GlideRegScene.transforms import volumeOf

from .registration import Registration


class PropagationRun(Registration):
    """A run of the worker for a :class:`PropagateRequest`; ``result``: :class:`PropagatedNodes`."""

    kind = "propagation"

    def _collect(self, folder: Path) -> CollectedPropagation:
        return collectPropagation(self.request, folder)

    def _read(self, folder: Path):
        return readPropagation(folder)

    def _import(self) -> PropagatedNodes:
        return importPropagation(self.request, self._files, self._inputs)

    def _readable(self, text: str) -> str:
        """The worker's sentence with the names of nodes in the place of our files."""
        for item in self._inputs.items:
            for file in item.files:
                text = text.replace(str(self._folder / file.name), item.node.GetName())
        return super()._readable(text)


class PropagationLogic:
    """What GlideRegLogic can carry over. It needs ``launch`` and ``library`` of its class."""

    def propagate(
        self,
        nodes,
        transform,
        fixedVolume=None,
        movingVolume=None,
        blocking: bool = True,
        onProgress=None,
        onFinished=None,
        **options,
    ):
        """Carries segmentations, markups, models, dose and volumes from one image to the other.

        :param nodes: a node or a list of them; they belong to the moving volume, with ``back`` to
            the fixed one. They are not changed.
        :param transform: the result of a registration, or any transform node, fixed to moving. The
            volumes need to be given only for transforms of others.
        :param options: ``back``, ``smooth`` (segments without steps), ``doses`` (volumes that are
            dose, beside those that SlicerRT marks): see :class:`PropagateRequest`.
        :return: the new nodes in the order of ``nodes``; None when it was cancelled. Without
            ``blocking`` the running :class:`PropagationRun` at once; its ``result.undo()`` takes
            the new nodes out again.
        :raises GlideRegError: one sentence; nothing is left in the scene then.
        """
        nodes = list(nodes) if isinstance(nodes, list | tuple) else [nodes]
        roles = (("fixed", fixedVolume), ("moving", movingVolume))
        fixed, moving = (volume or volumeOf(transform, role) for role, volume in roles)
        request = PropagateRequest(nodes, transform, fixed, moving, **options)
        return self.runPropagation(request, blocking, onProgress, onFinished)

    def runPropagation(
        self, request: PropagateRequest, blocking=True, onProgress=None, onFinished=None
    ):
        """Runs a request; see :meth:`propagate`."""
        run = PropagationRun(request, self.library, onProgress, onFinished)
        self.launch(run, blocking)
        if not blocking:
            return run
        return run.result.nodes if run.result is not None else None

    @staticmethod
    def propagateRequestFrom(parameters, nodes=(), doses=()) -> PropagateRequest:
        """The choices of the panel as a request, with the nodes that are ticked there."""
        return PropagateRequest(
            list(nodes),
            parameters.propagateTransform or parameters.transform,
            parameters.fixedVolume,
            parameters.movingVolume,
            back=parameters.propagateDirection.value == "back",
            smooth=parameters.smoothPropagated,
            doses=tuple(doses),
        )
