"""How the code hangs together: who may import whom, what is imported as what, whether pyproject lists every package."""

import ast
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("dataplane", "framework", "apps", "cli", "testing")
# Who may import whom, besides itself. pydpdk is a project of its own and knows nothing of the others.
MAY_IMPORT = {
    "pydpdk": set[str](),
    "dataplane": {"pydpdk"},
    "framework": {"dataplane", "pydpdk"},
    "testing": {"framework", "dataplane"},
    "apps": {"framework", "dataplane"},
    "cli": {"apps", "framework", "dataplane", "testing"},
}


def layer_of(path: Path) -> str:
    relative = path.relative_to(ROOT).as_posix()
    return "pydpdk" if relative.startswith("dataplane/pydpdk/") else relative.partition("/")[0]


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def others() -> list[Path]:
    return sorted(path for folder in ("tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever it stands; `.` stands for a relative one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update({"." * node.level + (node.module or "")})
            if node.module == "mpserve" and not node.level:
                found.update(f"mpserve.{alias.name}" for alias in node.names)
    return found


def layer_imported(module: str) -> str:
    words = module.split(".")
    if words[0] == "pydpdk":
        return "pydpdk"
    return words[1] if words[0] == "mpserve" and len(words) > 1 and words[1] in FOLDERS else ""


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_dependencies_point_one_way(path: Path) -> None:
    layer = layer_of(path)
    wrong = {name for name in imports(path) if layer_imported(name) not in ({"", layer} | MAY_IMPORT[layer])}
    assert not wrong, f"{layer} may import {MAY_IMPORT[layer] or 'nothing of ours'}"


@pytest.mark.parametrize("path", sources() + others(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_are_absolute_and_have_one_root(path: Path) -> None:
    """`import dataplane` from the root would load a second copy of everything."""
    if layer_of(path) == "pydpdk":
        names = {name for name in imports(path) if name.split(".")[0] == "mpserve"}
    else:
        names = {name for name in imports(path) if name.startswith(".")}
    assert not names
    assert not {name for name in imports(path) if name.split(".")[0] in FOLDERS}


def test_the_stack_needs_no_dpdk_to_be_imported() -> None:
    """pydpdk is imported inside functions, or where an ImportError is met: everything works without the extension."""
    for path in sources():
        if layer_of(path) == "pydpdk":
            continue
        for node in ast.parse(path.read_text()).body:
            names = imports_of_statement(node)
            assert "pydpdk" not in {name.split(".")[0] for name in names}, path


def imports_of_statement(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} if isinstance(node, ast.ImportFrom) else set()


def packages_on_disk() -> dict[str, str]:
    """Import name -> folder, of every folder with an __init__.py."""
    found = {"mpserve": "mpserve"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("__init__.py"):
            where = path.parent.relative_to(ROOT).as_posix()
            name = "pydpdk" + where.removeprefix("dataplane/pydpdk") if "pydpdk" in where else f"mpserve.{where}"
            found[name.replace("/", ".")] = where
    return found


def test_pyproject_lists_the_packages_on_disk() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages_on_disk())
    assert setuptools["package-dir"] == packages_on_disk()


def test_every_folder_with_sources_is_a_package() -> None:
    folders = {path.parent for path in sources()}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_importing_the_public_names_is_light() -> None:
    program = "import sys, mpserve; print([m for m in ('numpy', 'numba', 'pydpdk', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there() -> None:
    import mpserve

    assert {name for name in mpserve.__all__ if getattr(mpserve, name, None) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mpserve.nonsense  # noqa: B018


def test_size(record_property, capsys) -> None:  # type: ignore[no-untyped-def]
    """States the median length of a function and the largest module; nothing may grow out of all proportion."""
    lengths: list[tuple[int, str]] = []
    modules: list[tuple[int, str]] = []
    for path in sources():
        text = path.read_text()
        name = path.relative_to(ROOT).as_posix()
        modules.append((len(text.splitlines()), name))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths.append(((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}:{node.name}"))
    median = statistics.median(length for length, _ in lengths)
    with capsys.disabled():
        print(
            f"\n{len(modules)} modules of {sum(size for size, _ in modules)} lines, the largest {max(modules)[1]} with "
            f"{max(modules)[0]}; {len(lengths)} functions, median {median:g} lines, the longest {max(lengths)[1]} with "
            f"{max(lengths)[0]}"
        )
    record_property("median function length", median)
    assert median <= 12
    assert max(modules)[0] <= 600, max(modules)
    assert max(lengths)[0] <= 80, max(lengths)
