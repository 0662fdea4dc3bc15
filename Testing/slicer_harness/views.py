"""Slice views and the 3-D view of a scene as pictures, drawn off screen by Slicer's own code.

Each view is a render window with Slicer's displayable managers on one renderer, as the desktop's
widgets set them up; only the slice image itself is added by hand (CTK does it on the desktop).
``python Testing/slicer_harness/views.py`` says whether this machine can draw at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import slicer

    from .scene import SceneHarness

#: Software rendering through EGL: the same pictures with and without a display or a graphics card.
PINNED = {
    "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "GALLIUM_DRIVER": "llvmpipe",
}
_MESA_VENDOR = Path("/usr/share/glvnd/egl_vendor.d/50_mesa.json")
_INSTALL = (
    "Install Debian's libegl1 and libgl1-mesa-dri (apt-get install libegl1 libgl1-mesa-dri), or "
    "libosmesa6 and set VTK_DEFAULT_OPENGL_WINDOW=vtkOSOpenGLRenderWindow."
)

_TRIANGLE = """
import vtk
source = vtk.vtkRegularPolygonSource(); source.SetNumberOfSides(3)
mapper = vtk.vtkPolyDataMapper(); mapper.SetInputConnection(source.GetOutputPort())
actor = vtk.vtkActor(); actor.SetMapper(mapper); actor.GetProperty().LightingOff()
renderer = vtk.vtkRenderer(); renderer.AddActor(actor)
window = vtk.vtkRenderWindow(); window.SetOffScreenRendering(1); window.SetSize(32, 32)
window.AddRenderer(renderer); window.Render()
pixels = vtk.vtkUnsignedCharArray(); window.GetPixelData(0, 0, 31, 31, 0, pixels, 0)
renderer_name = [line for line in window.ReportCapabilities().splitlines() if "renderer" in line]
print("drawn", pixels.GetRange(0)[1] > 200, window.GetClassName(), *renderer_name)
"""

#: Slicer's displayable managers per kind of view, in the order the desktop adds them.
_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLTransformsDisplayableManager2D",
)
_THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLTransformsDisplayableManager3D",
)


def pin_rendering() -> None:
    """Chooses one GL backend for this process; call it before VTK makes its first window.

    VTK reads the variables when it makes a window. What the caller has set already stays.
    """
    for name, value in PINNED.items():
        os.environ.setdefault(name, value)
    if _MESA_VENDOR.is_file():  # else a graphics card's own EGL would be asked first
        os.environ.setdefault("__EGL_VENDOR_LIBRARY_FILENAMES", str(_MESA_VENDOR))


def check_rendering() -> str | None:
    """None when a triangle can be drawn here, else a sentence that says what to install.

    It is tried in a child process: without a GL library VTK ends the process.
    """
    pin_rendering()
    child = subprocess.run(
        [sys.executable, "-c", _TRIANGLE], capture_output=True, text=True, timeout=120, check=False
    )
    last = (child.stdout.strip().splitlines() or [""])[-1]
    wanted = os.environ["VTK_DEFAULT_OPENGL_WINDOW"]
    if child.returncode == 0 and last.startswith(f"drawn True {wanted}"):
        return None
    return f"VTK cannot draw off screen with {wanted} (exit code {child.returncode}). {_INSTALL}"


class _View:
    """A render window with displayable managers; made and closed with its scene."""

    def __init__(
        self,
        harness: SceneHarness,
        node: slicer.vtkMRMLAbstractViewNode,
        managers: Sequence[str],
        size: tuple[int, int],
    ) -> None:
        pin_rendering()
        import slicer
        import vtk

        self.harness = harness
        self.node = node
        vtk.vtkMapper.SetResolveCoincidentTopologyToPolygonOffset()
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(4)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.interactor.SetRenderWindow(self.window)
        self.window.Render()  # the managers expect a GL context
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        for class_name in managers:
            manager = getattr(slicer, class_name)()
            manager.SetMRMLApplicationLogic(harness.application)
            self.group.AddDisplayableManager(manager)
        self.group.SetMRMLDisplayableNode(node)
        harness.on_close.append(self.close)

    def render(self, path: str | os.PathLike[str] | None = None) -> np.ndarray:
        """The view as (H, W, 3) bytes, top row first; also as a PNG file when a path is given."""
        import vtk
        from vtk.util.numpy_support import vtk_to_numpy

        self.window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.SetInputBufferTypeToRGB()
        grabber.ReadFrontBufferOff()
        grabber.ShouldRerenderOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)
        picture = np.ascontiguousarray(pixels[::-1])
        if path is not None:
            save_png(picture, path)
        return picture

    def close(self) -> None:
        """Lets go of the scene and of the window."""
        self.group.SetMRMLDisplayableNode(None)
        self.window.Finalize()


class SliceView(_View):
    """One slice view (``Red``, ``Yellow``, ``Green``) in radiological convention, as on screen."""

    def __init__(
        self, harness: SceneHarness, name: str = "Red", size: tuple[int, int] = (400, 400)
    ) -> None:
        import slicer
        import vtk

        self.size = size
        node = harness.scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(harness.application)
        self.logic.SetMRMLScene(harness.scene)
        self.logic.SetSliceNode(node)
        logics = harness.application.GetSliceLogics()
        if logics is None:
            logics = vtk.vtkCollection()
            harness.application.SetSliceLogics(logics)
        logics.AddItem(self.logic)
        self.logic.ResizeSliceNode(*size)
        self.composite = self.logic.GetSliceCompositeNode()
        super().__init__(harness, node, _SLICE_MANAGERS, size)
        self.logic.SetDisplayableManagerGroup(self.group)  # as the desktop's layout manager does
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()

    def show(
        self,
        background: slicer.vtkMRMLVolumeNode | None = None,
        foreground: slicer.vtkMRMLVolumeNode | None = None,
        foregroundOpacity: float | None = None,
        label: slicer.vtkMRMLVolumeNode | None = None,
    ) -> SliceView:
        """Puts volumes into the layers; what is not given stays as it is."""
        if background is not None:
            self.composite.SetBackgroundVolumeID(background.GetID())
        if foreground is not None:
            self.composite.SetForegroundVolumeID(foreground.GetID())
        if foregroundOpacity is not None:
            self.composite.SetForegroundOpacity(foregroundOpacity)
        if label is not None:
            self.composite.SetLabelVolumeID(label.GetID())
        return self

    def fit(self) -> SliceView:
        """Shows the whole background volume, at its middle slice."""
        self.logic.FitSliceToBackground(*self.size)
        return self

    def jump(self, ras: Sequence[float]) -> SliceView:
        """Moves the slice plane through a RAS point without moving the picture sideways."""
        self.node.JumpSliceByOffsetting(*ras)
        return self

    def pixel(self, ras: Sequence[float]) -> tuple[int, int]:
        """The (row, column) at which a RAS point lies in the picture."""
        import vtk

        ras_to_xy = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), ras_to_xy)
        x, y, _, _ = ras_to_xy.MultiplyPoint((*ras, 1.0))
        return self.size[1] - 1 - round(y), round(x)

    def render(self, path: str | os.PathLike[str] | None = None) -> np.ndarray:
        """The slice view as (H, W, 3) bytes, top row first."""
        self.logic.UpdatePipeline()
        connection = self.logic.GetImageDataConnection()
        self.renderer.RemoveViewProp(self._image)
        if connection is not None:
            self._mapper.SetInputConnection(connection)
            self.renderer.AddViewProp(self._image)
        return super().render(path)

    def close(self) -> None:
        """Lets go of the scene, of the slice logic and of the window."""
        super().close()
        self.harness.application.GetSliceLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)


class ThreeDView(_View):
    """The 3-D view with Slicer's box, camera, models, markups and transforms."""

    def __init__(self, harness: SceneHarness, size: tuple[int, int] = (400, 400)) -> None:
        node = harness.scene.GetSingletonNode("1", "vtkMRMLViewNode")
        super().__init__(harness, node, _THREE_D_MANAGERS, size)
        self.renderer.GradientBackgroundOn()
        self.renderer.SetBackground(*node.GetBackgroundColor())
        self.renderer.SetBackground2(*node.GetBackgroundColor2())

    @property
    def camera(self) -> slicer.vtkMRMLCameraNode:
        """The camera node of the view."""
        manager = self.group.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager")
        return manager.GetCameraNode()

    def look_from(self, side: str = "anterior", fit: bool = True) -> ThreeDView:
        """Turns the camera to an anatomical side and (usually) fits everything into the view."""
        camera = self.camera
        camera.RotateTo(getattr(camera, side.capitalize()))
        if fit:
            camera.Reset(False, True, True, self.renderer)
        return self

    def turn(self, to_the_side: float = 0.0, upward: float = 0.0) -> ThreeDView:
        """Moves the camera around what it looks at, in degrees."""
        self.camera.GetCamera().Azimuth(to_the_side)
        self.camera.GetCamera().Elevation(upward)
        self.renderer.ResetCameraClippingRange()
        return self


def montage(pictures: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Pictures side by side, row after row, on white; each cell as large as the largest picture."""
    height = max(picture.shape[0] for picture in pictures) + gap
    width = max(picture.shape[1] for picture in pictures) + gap
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height - gap, columns * width - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * height, (index % columns) * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def save_png(picture: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes a picture as PNG and makes its folder."""
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


if __name__ == "__main__":
    problem = check_rendering()
    if problem:
        print(problem, file=sys.stderr)
    sys.exit(1 if problem else 0)
