"""What the extension ships and what the extensions index will ask of it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cmake_lists import commands, shipped_files
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None  # Python 3.10: the one test that needs it says so

ROOT = Path(__file__).resolve().parents[2]
MODULE, LIBRARY = ROOT / "GlideReg", ROOT / "GlideRegLib"
#: Folder -> the macro through which its CMake list ships it.
WINGS = {MODULE: "slicerMacroBuildScriptedModule", LIBRARY: "ctkMacroCompilePythonScript"}
REPOSITORY = "https://github.com/GlideReg/SlicerGlideReg"
RAW_FILES = "https://raw.githubusercontent.com/GlideReg/SlicerGlideReg/main/"

SLICER_ONLY = {"slicer", "qt", "ctk", "vtk", "vtkmodules"}
OURS = {"GlideReg", "GlideRegLib", "GlideRegScene", "GlideRegPanel", "GlideRegRun"}
#: What the review of the extensions index accepts at file scope.
AT_FILE_SCOPE = (
    sys.stdlib_module_names | SLICER_ONLY | OURS | {"SimpleITK", "numpy", "scipy", "__future__"}
)
#: Slicer's own or the PyTorch extension's: the module must never install them.
NEVER_INSTALLED = {"torch", "numpy", "simpleitk"}
#: Needed by the command line and by pages only; see report-requirements.txt.
NOT_FOR_SLICER = {"typer", "rich", "jinja2", "matplotlib", "pillow"}


def files_of(folder: Path) -> list[str]:
    """Files that should ship, relative to the folder."""
    relative = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in relative
        if "__pycache__" not in path.parts
        and path.name != "CMakeLists.txt"
        and not path.name.startswith(".")
    )


def python_files(folder: Path) -> list[Path]:
    return [folder / name for name in files_of(folder) if name.endswith(".py")]


def imported_names(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """Top-level names that import statements among the nodes reach for, with their lines."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], node.lineno


def file_scope(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the file is imported: class bodies and branches, not functions."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node):
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from file_scope(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from file_scope(handler.body)


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


# --- what ships -------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", WINGS, ids=lambda folder: folder.name)
def test_the_cmake_list_holds_exactly_the_files_of_the_folder(folder: Path) -> None:
    shipped = shipped_files(folder / "CMakeLists.txt", WINGS[folder])
    listed, present = shipped.scripts + shipped.resources, files_of(folder)
    missing, gone = sorted(set(present) - set(listed)), sorted(set(listed) - set(present))
    assert not missing, f"add to {folder.name}/CMakeLists.txt, or they do not ship: {missing}"
    assert not gone, f"{folder.name}/CMakeLists.txt lists what does not exist: {gone}"
    assert len(listed) == len(set(listed)), "a file is listed twice"


@pytest.mark.parametrize("folder", WINGS, ids=lambda folder: folder.name)
def test_scripts_and_resources_are_not_mixed_up(folder: Path) -> None:
    shipped = shipped_files(folder / "CMakeLists.txt", WINGS[folder])
    assert all(name.endswith(".py") for name in shipped.scripts)
    assert not any(name.endswith(".py") for name in shipped.resources)


def test_the_library_is_installed_as_a_package_beside_the_module() -> None:
    options = shipped_files(LIBRARY / "CMakeLists.txt", WINGS[LIBRARY]).options
    assert options["DESTINATION_DIR"] == [
        "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/GlideRegLib"
    ]
    assert options["INSTALL_DIR"] == ["${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/GlideRegLib"]
    assert "NO_INSTALL_SUBDIR" in options  # else it would land in GlideRegLib/GlideRegLib


def test_the_module_asks_for_generic_tests() -> None:
    options = shipped_files(MODULE / "CMakeLists.txt", WINGS[MODULE]).options
    assert options["NAME"] == ["GlideReg"]
    assert "WITH_GENERIC_TESTS" in options


def test_every_folder_that_cmake_enters_has_a_list() -> None:
    for path in (ROOT / "CMakeLists.txt", ROOT / "Testing" / "CMakeLists.txt"):
        for name, arguments in commands(path):
            if name == "add_subdirectory":
                assert (path.parent / arguments[0] / "CMakeLists.txt").is_file(), arguments


# --- what the extensions index reads ----------------------------------------------------------


def metadata() -> dict[str, str]:
    """EXTENSION_* of the top CMake file, read line by line as the index's checker does."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return dict(re.findall(r'^set\((EXTENSION_\w+) "([^"\n]+)"\)$', text, re.MULTILINE))


def test_extension_metadata_is_complete_and_each_entry_stands_on_one_line() -> None:
    entries = metadata()
    wanted = ["HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"]
    assert sorted(entries) == sorted(f"EXTENSION_{name}" for name in wanted)
    assert entries["EXTENSION_DEPENDS"] == "PyTorch"
    assert entries["EXTENSION_HOMEPAGE"] == REPOSITORY


def test_icon_and_screenshots_are_files_of_this_repository() -> None:
    entries = metadata()
    for url in [entries["EXTENSION_ICONURL"], *entries["EXTENSION_SCREENSHOTURLS"].split()]:
        assert url.startswith(RAW_FILES)
        assert (ROOT / url.removeprefix(RAW_FILES)).is_file(), url


@pytest.mark.parametrize("name", ["GlideReg.png", "GlideReg/Resources/Icons/GlideReg.png"])
def test_icons_have_the_size_that_slicer_recommends(name: str) -> None:
    from PIL import Image

    with Image.open(ROOT / name) as image:
        assert image.size == (128, 128)
        assert image.mode == "RGBA"


def test_the_project_is_named_like_the_catalog_entry() -> None:
    assert ("project", ["GlideReg"]) in commands(ROOT / "CMakeLists.txt")


def test_the_catalog_entry_fits_its_schema() -> None:
    content = (ROOT / "GlideReg.json").read_bytes()
    assert b"\r" not in content
    entry = json.loads(content)
    # Slicer's schema v1.0.1 allows no other keys.
    allowed = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies"}
    allowed |= {"build_subdirectory", "enabled", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry) <= allowed
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["category"] == "Registration"
    assert entry["build_dependencies"] == ["PyTorch"]
    assert entry["scm_url"] == REPOSITORY
    assert entry["scm_type"] == "git"
    assert type(entry["tier"]) is int
    assert 1 <= entry["tier"] <= 5


def test_the_repository_stays_small() -> None:
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.split("\0") if name]
    total = sum(path.stat().st_size for path in paths if path.is_file())
    assert total < 100e6


# --- what gets installed ----------------------------------------------------------------------


def requirements() -> list[Requirement]:
    text = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_module_installs_what_the_library_needs() -> None:
    if tomllib is None:
        pytest.skip("tomllib comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {str(Requirement(line)) for line in project["dependencies"]}
    left_out = NEVER_INSTALLED | NOT_FOR_SLICER
    needed = {line for line in needed if Requirement(line).name.lower() not in left_out}
    assert {str(requirement) for requirement in requirements()} == needed


def test_a_report_in_slicer_needs_what_the_library_says_and_no_more() -> None:
    if tomllib is None:
        pytest.skip("tomllib comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {Requirement(line).name: str(Requirement(line)) for line in project["dependencies"]}
    text = (MODULE / "Resources" / "report-requirements.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    asked = {str(Requirement(line)) for line in lines if line and not line.startswith("#")}
    assert asked == {needed[name] for name in ("jinja2", "matplotlib", "pillow")}


def test_nothing_of_slicers_own_is_installed_and_nothing_is_pinned() -> None:
    for requirement in requirements():
        assert requirement.name.lower() not in NEVER_INSTALLED
        assert [part.operator for part in requirement.specifier] == [">="], str(requirement)


# --- what the code reaches for ----------------------------------------------------------------


def test_the_module_imports_nothing_at_file_scope_that_slicer_lacks() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files(MODULE)
        for name, line in imported_names(file_scope(parse(path).body))
        if name not in AT_FILE_SCOPE
    ]
    assert not found, found


def test_the_library_knows_no_slicer() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files(LIBRARY)
        for name, line in imported_names(ast.walk(parse(path)))
        if name in SLICER_ONLY
    ]
    assert not found, found


def test_scene_code_knows_no_widgets() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files(MODULE / "GlideRegScene")
        for name, line in imported_names(ast.walk(parse(path)))
        if name in {"qt", "ctk"}
    ]
    assert not found, found


def test_the_module_file_runs_nothing_when_slicer_starts() -> None:
    """Slicer imports GlideReg.py at every start: only imports, definitions and constants."""
    harmless = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    for path in python_files(MODULE):
        if path.name != "GlideReg.py":
            continue
        for node in parse(path).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert isinstance(node, harmless) or docstring or _is_constant(node), (
                f"{path.name}:{node.lineno} runs code at file scope"
            )


def _is_constant(node: ast.stmt) -> bool:
    """An assignment to UPPER_CASE names without any call."""
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Assign):
        targets = node.targets
    else:
        return False
    upper = all(isinstance(t, ast.Name) and re.fullmatch(r"_?[A-Z_0-9]+", t.id) for t in targets)
    return upper and not any(isinstance(part, ast.Call) for part in ast.walk(node))


def test_files_of_the_module_stay_short() -> None:
    for path in python_files(MODULE):
        limit = 300 if path == MODULE / "GlideReg.py" else 400
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines; the limit is {limit}"


def test_what_the_module_takes_from_the_library_needs_no_pytorch() -> None:
    """PyTorch can end Slicer's own process on some systems: it belongs into the worker's."""
    names = {
        node.module
        for path in python_files(MODULE)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("GlideRegLib")
    }
    assert len(names) > 10
    code = f"import sys, {', '.join(sorted(names))}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
