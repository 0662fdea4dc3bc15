"""Masking: a segmentation with a segment, or a label map, for each image.

Connected by hand: the parameters take two kinds of node, for which Slicer has no connector.
"""

from functools import partial

import slicer
from slicer.i18n import tr as _

from .section import Section

ROLES = ("fixed", "moving")


class MaskingSection(Section):
    """Two rows: a node and, for segmentations, one of its segments."""

    def __init__(self, ui) -> None:
        super().__init__(ui)
        self._updating = False
        for role in ROLES:
            selector, combo = self._widgets(role)
            selector.connect("currentNodeChanged(vtkMRMLNode*)", partial(self._onNode, role))
            combo.connect("activated(int)", partial(self._onSegment, role))

    def update(self) -> None:
        if self.parameters is None or self._updating:
            return
        self._updating = True
        try:
            for role in ROLES:
                selector, _combo = self._widgets(role)
                node = getattr(self.parameters, f"{role}Mask")
                selector.setCurrentNode(node)
                self._fillSegments(role, node)
        finally:
            self._updating = False

    def _widgets(self, role: str) -> tuple:
        return getattr(self.ui, f"{role}MaskSelector"), getattr(self.ui, f"{role}SegmentCombo")

    def _fillSegments(self, role: str, node) -> None:
        """Lists the segments, all of them first; a chosen one that is gone is said to be gone."""
        _selector, combo = self._widgets(role)
        isSegmentation = node is not None and node.IsA("vtkMRMLSegmentationNode")
        kinds = slicer.vtkSegmentation
        events = (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified)
        events += (slicer.vtkMRMLSegmentationNode.SegmentationChangedEvent,)
        self.follow(role, node if isSegmentation else None, events, self._onSegmentsChanged)
        chosen = getattr(self.parameters, f"{role}Segment")
        combo.clear()
        combo.enabled = isSegmentation
        combo.addItem(_("All segments"), "")
        if not isSegmentation:
            return
        segmentation = node.GetSegmentation()
        known = list(segmentation.GetSegmentIDs())
        for identifier in known:
            combo.addItem(segmentation.GetSegment(identifier).GetName(), identifier)
        if chosen and chosen not in known:
            # Not silently replaced by all segments: the run then says what is missing.
            combo.addItem(_("(removed segment)"), chosen)
        combo.setCurrentIndex(max(combo.findData(chosen), 0))

    def _onNode(self, role: str, node) -> None:
        if self.parameters is None or self._updating:
            return
        with slicer.util.NodeModify(self.parameters.parameterNode):
            setattr(self.parameters, f"{role}Mask", node)
            setattr(self.parameters, f"{role}Segment", "")

    def _onSegment(self, role: str, index: int) -> None:
        if self.parameters is not None:
            _selector, combo = self._widgets(role)
            setattr(self.parameters, f"{role}Segment", combo.itemData(index) or "")

    def _onSegmentsChanged(self, caller, event) -> None:
        self.update()
