"""The follow-up lung pair in Slicer's Sample Data module, from where its authors publish it.

Real data: baseline and follow-up CT of one patient, cropped to the right lung, with 51 pairs of
landmarks. The images are those of the elastix test suite, the landmarks those of ITKElastix's
examples, both Apache-2.0 repositories. Every address names a commit, so its file never changes.
"""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from .library import makeLibraryImportable

CATEGORY = "GlideReg"
SAMPLE_NAME = "GlideRegLungFollowUp"

# The first version of the images: later ones of elastix paint over the rim of the scan circle.
_IMAGES = (
    "https://raw.githubusercontent.com/SuperElastix/elastix/"
    "279dbdf74ef81c757757d0d49571d79a810c6c3b/src/Testing/Data/"
)
_LANDMARKS = (
    "https://raw.githubusercontent.com/InsightSoftwareConsortium/ITKElastix/"
    "a55098204de32d0ee50b4e19bb9912f0bd972690/examples/data/"
)
#: Address, file in Slicer's cache, SHA256, node (None: a format that Slicer cannot load).
_FILES = (
    (
        _IMAGES + "3DCT_lung_baseline.mha",
        "GlideReg-lung-baseline.mha",
        "37ae58eda2c7f745f62e4a526a964170fecf4cd923d30f34756de5ba72d32fb1",
        "Lung baseline",
    ),
    (
        _IMAGES + "3DCT_lung_followup.mha",
        "GlideReg-lung-followup.mha",
        "56dc3754995946acb2828bcd2843885720821fc00e80d8c94576f2da266dd24d",
        "Lung follow-up",
    ),
    (
        _LANDMARKS + "CT_3D_lung_fixed_point_set_corrected.txt",
        "GlideReg-lung-baseline-landmarks.txt",
        "e8058287f6ed2204d5d90c8ca41931f00a42d943798fedaa4f5cb9e639623954",
        None,
    ),
    (
        _LANDMARKS + "CT_3D_lung_moving_point_set_corrected.txt",
        "GlideReg-lung-followup-landmarks.txt",
        "d612c0d653abc1f4785244c66e305d6f620befb7df43a98854e95b847e2ab99b",
        None,
    ),
)
_LANDMARK_NODES = ("Lung baseline landmarks", "Lung follow-up landmarks")


def registerSampleData(iconsPath: str | Path) -> None:
    """Adds the pair to the Sample Data module; ``iconsPath`` holds its thumbnail.

    The button loads two volumes and two lists of landmarks. ``SampleData.downloadSamples`` knows
    no custom loaders: it loads the volumes and leaves the landmarks as files in the cache.
    """
    import SampleData

    logic = SampleData.SampleDataLogic
    # Older Slicers show the category's own name and have no titles.
    if hasattr(logic, "registerCustomSampleDataCategory"):
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("GlideReg"))
    addresses, names, digests, nodes = zip(*_FILES, strict=True)
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        thumbnailFileName=str(Path(iconsPath) / "LungFollowUp.png"),
        uris=list(addresses),
        fileNames=list(names),
        checksums=[f"SHA256:{digest}" for digest in digests],
        nodeNames=list(nodes),
        customDownloader=downloadLungFollowUp,
    )


def downloadLungFollowUp(source) -> list:
    """Downloads a ``SampleDataSource``; returns its nodes: two volumes, two point lists.

    Where a file could not be had, Slicer's log says so and its node is left out.
    """
    import SampleData

    logic = SampleData.SampleDataLogic()
    # Without any node it returns the paths of what it could download.
    nodes = [node for node in logic.downloadFromSource(source) if not isinstance(node, str)]
    cache = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
    for (_address, name, _digest, _node), nodeName in zip(_FILES[2:], _LANDMARK_NODES, strict=True):
        if (cache / name).is_file():
            nodes.append(loadLandmarks(cache / name, nodeName))
    return nodes


def loadLandmarks(path: str | Path, nodeName: str) -> slicer.vtkMRMLMarkupsFiducialNode:
    """A new point list in the scene from any landmark file that GlideRegLib reads.

    Slicer itself has no reader for elastix's point files, whose coordinates are LPS mm.
    Raises ``GlideRegLib.errors.InputError`` when the file cannot be read.
    """
    makeLibraryImportable()
    from GlideRegLib.geometry import flip_lps_ras
    from GlideRegLib.landmarks import read_landmarks

    landmarks = read_landmarks(path)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", nodeName)
    slicer.util.updateMarkupsControlPointsFromArray(node, flip_lps_ras(landmarks.points))
    for k, label in enumerate(landmarks.labels):
        node.SetNthControlPointLabel(k, label)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is not None:
        display.SetPointLabelsVisibility(False)  # 51 labels would hide the lung
    return node
