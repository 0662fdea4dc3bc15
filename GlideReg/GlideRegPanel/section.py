"""What all sections of the panel have in common."""


class Section:
    """A part of the panel: shows the parameter node it is bound to, and follows nodes.

    ``ui`` has every widget of GlideReg.ui by its name. ``parameters`` is None while the module is
    left or the scene is being closed.
    """

    def __init__(self, ui) -> None:
        self.ui = ui
        self.parameters = None
        self._followed: dict[str, tuple] = {}

    def bind(self, parameters) -> None:
        """Shows another parameter node, or none; stops following nodes."""
        for role in list(self._followed):
            self.follow(role, None, (), None)
        self.parameters = parameters

    def update(self) -> None:
        """Shows what the parameter node says now."""

    def follow(self, role: str, node, events: tuple, callback) -> None:
        """Calls back on events of the node in a role, and no longer for the one before it.

        The same node may be followed in two roles.
        """
        before, tags = self._followed.get(role, (None, ()))
        if before is node:
            return
        for tag in tags:
            before.RemoveObserver(tag)
        tags = [node.AddObserver(event, callback) for event in events] if node is not None else []
        self._followed[role] = (node, tags)
