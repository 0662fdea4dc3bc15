"""GlideReg for 3D Slicer: the door. The work is in GlideRegScene, GlideRegRun, GlideRegPanel."""

import sys
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from GlideRegRun.commission import CommissionLogic
from GlideRegRun.dependencies import ensureInstalled, missingPackages
from GlideRegRun.nodule_logic import NoduleLogic
from GlideRegRun.propagation import PropagationLogic
from GlideRegRun.quality_logic import QualityLogic
from GlideRegRun.registration import Registration
from GlideRegScene import transforms
from GlideRegScene.inputs import Request
from GlideRegScene.library import makeLibraryImportable
from GlideRegScene.nodes import isInScene
from GlideRegScene.parameters import GlideRegParameterNode, settingsFromParameters
from GlideRegScene.results import forgetOutputsOfOthers

#: Packages that belong to the module.
_PACKAGES = ("GlideRegScene", "GlideRegRun", "GlideRegPanel", "GlideRegLib")


class GlideReg(ScriptedLoadableModule):
    """Name, category, help and what happens once at startup."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        makeLibraryImportable()
        self.parent.title = _("GlideReg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["GlideReg contributors"]
        self.parent.helpText = _(
            "Deformable registration of CT and MR: choose two volumes and press Register. "
            "<b>Research use only. Not a medical device.</b> "
            'See the <a href="https://github.com/GlideReg/SlicerGlideReg">tutorial</a>.'
        )
        self.parent.acknowledgementText = _(
            "The method follows GLIDE-Reg; encoders: SAM 2, MobileSAM, LiteMedSAM (Apache-2.0)."
        )
        # Our transforms are put right in every loaded scene, whether the panel is open or not.
        slicer.mrmlScene.AddObserver(
            slicer.vtkMRMLScene.EndImportEvent,
            lambda scene, event: transforms.restoreLoadedTransforms(slicer.mrmlScene),
        )
        window = slicer.util.mainWindow()
        if window is not None and window.visible:  # added to a Slicer that is running already
            _registerSampleData()
        else:
            slicer.app.connect("startupCompleted()", _registerSampleData)


def _registerSampleData() -> None:
    from GlideRegScene.sample_data import registerSampleData

    registerSampleData(Path(__file__).parent / "Resources" / "Icons")


def _requirements() -> Path:
    return Path(__file__).parent / "Resources" / "requirements.txt"


class GlideRegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's widget: life cycle only; the panel itself is GlideRegPanel.Panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None

    def setup(self) -> None:
        """Builds the panel when the module is opened for the first time."""
        from GlideRegPanel.panel import Panel
        from GlideRegPanel.section_files import addSections

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/GlideReg.ui"))
        addSections(uiWidget, self.resourcePath("UI"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = GlideRegLogic()
        self.panel = Panel(uiWidget, self.logic)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.panel.bind(self.logic.getParameterNode())

    def cleanup(self) -> None:
        """The application closes or the module is reloaded: a run must not outlive it."""
        self.removeObservers()
        if self.logic is not None:
            self.logic.stop()
        if self.panel is not None:
            self.panel.close()

    def onReload(self) -> None:
        """For developers: the packages beside this file are read again, too."""
        for name in list(sys.modules):
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self) -> None:
        """The user opens the module: the parameter node may be another one now."""
        if self.panel is not None:
            self.panel.bind(self.logic.getParameterNode())

    def exit(self) -> None:
        """The user opens another module; a run goes on, and is shown again on return."""
        if self.panel is not None:
            self.panel.bind(None)

    def onSceneStartClose(self, caller, event) -> None:
        """A run cannot bring its result into a scene that is being closed."""
        self.logic.abandon()
        self.panel.bind(None)

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.panel.bind(self.logic.getParameterNode())


class GlideRegLogic(
    NoduleLogic, QualityLogic, PropagationLogic, CommissionLogic, ScriptedLoadableModuleLogic
):
    """Registration of volume nodes, from the Python console and from the panel alike.

    What can be done with nodules is in :class:`NoduleLogic`, assessments are in
    :class:`QualityLogic`, what is carried over is in :class:`PropagationLogic`,
    and the self-test on a CT in :class:`CommissionLogic`.
    """

    #: The run that is going on in this application, if any: there is only one at a time.
    _running: Registration | None = None
    _endsWithSlicer = False

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.library = makeLibraryImportable()

    def getParameterNode(self) -> GlideRegParameterNode:
        """The module's choices, typed; they live in the scene."""
        return GlideRegParameterNode(super().getParameterNode())

    def register(
        self,
        fixedVolumeNode,
        movingVolumeNode,
        preset: str = "standard",
        settings: dict | None = None,
        blocking: bool = True,
        onProgress=None,
        onFinished=None,
        **nodes,
    ):
        """Registers the moving volume to the fixed one.

        :param preset: "fast", "standard", "fine" or "paper".
        :param settings: what to change of the preset, as in the library's settings JSON, e.g.
            ``{"features": {"encoder": "none"}, "grid": {"spacing_mm": 2.5}}``.
        :param blocking: wait (the application stays alive) and return the transform node; else
            return the running :class:`Registration` at once.
        :param onProgress: called with a ``ProgressUpdate`` (stage, fraction, secondsLeft).
        :param onFinished: called with the finished ``Registration`` (state, result, error, log).
        :param nodes: ``fixedLandmarks``, ``movingLandmarks`` (``useLandmarks=True``: they guide,
            too), ``fixedMask``, ``movingMask`` (with ``fixedSegment``, ``movingSegment``: name or
            ID), ``initialTransform``, ``warpedVolume``, ``transform``: see :class:`Request`.
        :return: a vtkMRMLTransformNode, fixed to moving, set from parent: put the moving volume
            under it to see it registered. None when it was cancelled.
        :raises GlideRegError: one sentence that says what to do. The inputs are never changed, and
            a run that fails or is cancelled leaves no nodes behind.
        """
        from GlideRegLib.settings import Settings

        chosen = Settings.from_dict({"preset_name": preset, **(settings or {})})
        chosen.check()
        request = Request(fixedVolumeNode, movingVolumeNode, chosen.to_dict(), **nodes)
        return self.run(request, blocking, onProgress, onFinished)

    def registerUsingParameterNode(
        self, parameters: GlideRegParameterNode, blocking=True, onProgress=None, onFinished=None
    ):
        """The same with the choices of the panel; outputs are remembered in the parameter node."""

        def remember(registration: Registration) -> None:
            if registration.result is not None and isInScene(parameters.parameterNode):
                parameters.transform = registration.result.transform
                parameters.warpedVolume = registration.result.warpedVolume
            if onFinished is not None:
                onFinished(registration)

        return self.run(self.requestFrom(parameters), blocking, onProgress, remember)

    @staticmethod
    def requestFrom(parameters: GlideRegParameterNode) -> Request:
        """The choices of the panel as a request. Raises the library's SettingsError."""
        names = ("fixedVolume", "movingVolume", "fixedLandmarks", "movingLandmarks")
        names += ("initialTransform", "fixedMask", "fixedSegment", "movingMask", "movingSegment")
        names += ("useLandmarks", "warpedVolume", "transform")
        settings = settingsFromParameters(parameters)
        request = Request(settings=settings, **{name: getattr(parameters, name) for name in names})
        forgetOutputsOfOthers(request)
        return request

    def run(self, request: Request, blocking: bool, onProgress=None, onFinished=None):
        """Runs a request; see :meth:`register`."""
        run = self.launch(Registration(request, self.library, onProgress, onFinished), blocking)
        if not blocking:
            return run
        return run.result.transform if run.result is not None else None

    def launch(self, run: Registration, blocking: bool) -> Registration:
        """Starts a run, of a registration or of a tracking, and waits for it if ``blocking``."""
        from GlideRegLib.errors import GlideRegError, InputError

        if self.running is not None:
            raise InputError(f"A {self.running.kind} is running; wait for it or cancel it first.")
        problem = run.request.problem()
        if problem:
            raise InputError(problem)
        ensureInstalled(_requirements())
        if not GlideRegLogic._endsWithSlicer:
            GlideRegLogic._endsWithSlicer = True
            slicer.app.connect("aboutToQuit()", GlideRegLogic.stop)
        GlideRegLogic._running = run
        run.start()
        if not blocking:
            from GlideRegPanel.polling import pollWithTimer

            pollWithTimer(run)
            return run
        app = getattr(slicer, "app", None)
        run.wait(app.processEvents if app is not None else lambda: None)
        if run.state == "failed":
            raise GlideRegError(run.error)
        return run

    @property
    def running(self) -> Registration | None:
        """The run that is going on, or None."""
        run = GlideRegLogic._running
        return run if run is not None and run.state == "running" else None

    def cancel(self) -> None:
        """Stops the run within two seconds; scene and disk are as before it."""
        if self.running is not None:
            self.running.cancel()

    def abandon(self) -> None:
        """The scene is being closed: the run ends and brings nothing back."""
        if self.running is not None:
            self.running.abandon()

    @staticmethod
    def stop() -> None:
        """The application closes: the run ends at once."""
        if GlideRegLogic._running is not None:
            GlideRegLogic._running.kill()


class GlideRegTest(ScriptedLoadableModuleTest):
    """Self test for real Slicer (not run where the extension is developed; see Testing/Python)."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_registersAShiftedVolume()

    def test_registersAShiftedVolume(self):
        """A body that was moved by 11 mm comes back; forward and inverse transforms agree."""
        from GlideRegScene.self_test import checkResult, makeShiftedPair

        missing = missingPackages(_requirements())
        if missing:  # test machines of Slicer have none, and installing is not a test's business
            self.delayDisplay("Not tested, these packages are missing: " + ", ".join(missing))
            return
        self.delayDisplay("Registering a synthetic pair (needs the Python packages)")
        fixed, moving, shift = makeShiftedPair()
        settings = {"features": {"encoder": "none"}}
        transform = GlideRegLogic().register(fixed, moving, preset="fast", settings=settings)
        checkResult(self, transform, shift)
        self.delayDisplay("Test passed")
