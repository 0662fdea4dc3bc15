"""Python packages at first use: PyTorch through its extension, the rest through slicer.packaging.

Asked for and installed only when the user presses Apply. Nothing heavy is imported here: torch can
crash Slicer's own process on some systems, and it is only needed in the worker's.
"""

import importlib.metadata
import subprocess
from pathlib import Path

TORCH_REQUIREMENT = ">=2.4"


class MissingDependency(Exception):  # noqa: N818 - the name says what it is
    """A package is not there and was not installed: one sentence for the user."""


def ensureInstalled(requirements: Path) -> None:
    """Installs what is missing, after asking. Raises MissingDependency with one sentence."""
    import slicer.packaging

    version = torchVersion()
    if version is None:
        _installTorch()
    elif not slicer.packaging.pip_check(f"torch{TORCH_REQUIREMENT}"):
        raise MissingDependency(
            f"PyTorch {version} is installed, but GlideReg needs {TORCH_REQUIREMENT[2:]} or newer; "
            "update it with the module PyTorch Util, and restart Slicer."
        )
    try:
        slicer.packaging.pip_ensure(
            slicer.packaging.load_requirements(str(requirements)), requester="GlideReg"
        )
    except subprocess.CalledProcessError as error:
        raise MissingDependency(
            "Python packages could not be installed; check the network or the proxy, or install "
            f"the packages of {requirements.name} by hand (see the README)."
        ) from error
    except RuntimeError as error:
        raise MissingDependency(
            "GlideReg needs its Python packages; nothing was installed and nothing was run."
        ) from error


def missingPackages(requirements: Path) -> list[str]:
    """What would have to be installed first."""
    import slicer.packaging

    needed = [f"torch{TORCH_REQUIREMENT}"]
    needed += [str(r) for r in slicer.packaging.load_requirements(str(requirements))]
    return [name for name in needed if not slicer.packaging.pip_check(name)]


def torchVersion() -> str | None:
    """The version of PyTorch that is installed, without importing it; None when there is none."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _installTorch() -> None:
    import slicer

    if slicer.app.testingEnabled():  # the PyTorch extension would install without asking
        raise MissingDependency("PyTorch is missing; nothing is installed in testing mode.")
    try:
        import PyTorchUtils
    except ImportError as error:
        raise MissingDependency(
            "PyTorch is missing; install the extension 'PyTorch' in the Extensions Manager, "
            "restart Slicer, and press Register again."
        ) from error
    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
        )
    except Exception as error:  # whatever pip or the network did
        raise MissingDependency(
            "PyTorch could not be installed; see the log of the PyTorch Util module, and try its "
            "Install button."
        ) from error
    if torch is None:
        raise MissingDependency(
            "GlideReg needs PyTorch; nothing was installed and nothing was run."
        )
