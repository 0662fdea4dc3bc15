"""What all sections of the panel have in common."""

from slicer.util import VTKObservationMixin


class Section(VTKObservationMixin):
    """A part of the panel: shows the parameter node it is bound to, and follows nodes.

    ``ui`` has every widget of GlideReg.ui by its name. ``parameters`` is None while the module is
    left or the scene is being closed.
    """

    def __init__(self, ui) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self.parameters = None
        self._followed: dict[str, tuple] = {}

    def bind(self, parameters) -> None:
        """Shows another parameter node, or none."""
        self.removeObservers()
        self._followed.clear()
        self.parameters = parameters

    def update(self) -> None:
        """Shows what the parameter node says now."""

    def follow(self, role: str, node, events: tuple, callback) -> None:
        """Calls back on events of the node in a role, and no longer for the one before it."""
        before = self._followed.get(role)
        if before is not None and before[0] is node:
            return
        if before is not None and before[0] is not None:
            for event in before[1]:
                self.removeObserver(before[0], event, callback)
        self._followed[role] = (node, events)
        if node is not None:
            for event in events:
                self.addObserver(node, event, callback, group=role)
