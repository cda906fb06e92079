"""The rooms import one way and no two files import each other.

Imports are read from the syntax tree, and so are strings that name a module: a string may be imported later.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sightline

PACKAGE = Path(sightline.__file__).parent

#: Each room may import those before it. What it may not, although they come before it, is in `BARRED`.
ORDER = (
    "errors",
    "registry",
    "oracles",
    "config",
    "records",
    "losses",
    "data",
    "endpoint",
    "models",
    "generators",
    "writers",
    "check",
    "judges",
    "builders",
    "evals",
    "recipes",
    "train",
    "report",
    "study",
    "api",
    "apps",
    "cli",
)
BARRED = {
    "endpoint": {"losses"},
    "models": {"losses", "endpoint"},
    "generators": {"losses"},
    "check": {"losses", "endpoint", "writers"},
    "evals": {"losses", "writers", "check", "judges", "builders"},
    "train": {"evals", "recipes", "check"},
}
WITHOUT_TORCH = {"errors", "config", "records", "endpoint", "study"}
TORCH = {"torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers"}


def module_name(path: Path) -> str:
    parts = ("sightline", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """`sightline.models.loading` -> `models`; the package itself and its `__main__` -> their own names."""
    return [*module.split("."), ""][1]


def statements(tree: ast.AST, *, top_level: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements below a node; at `top_level` only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and top_level:
            yield from statements(ast.Module(node.orelse, []), top_level=True)
        else:
            yield from statements(node, top_level=top_level)


@cache
def imports(module: str, top_level: bool = False) -> frozenset[str]:
    """The modules, by full name, that a module imports."""
    path = MODULES[module]
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"), str(path)), top_level=top_level):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        assert node.level == 0, f"{module} line {node.lineno}: a relative import hides the room it comes from"
        assert node.module is not None
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        found.update(name if name in MODULES else node.module for name in names)
    return frozenset(found)


def named(module: str) -> set[str]:
    """The modules that a module names in strings, such as "sightline.lab.oracle:score"; docstrings do not count."""
    path = MODULES[module]
    texts = (
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text.partition(":")[0] for text in texts} & set(MODULES) - {"sightline"}


def third_party(module: str) -> set[str]:
    """The packages that importing a module imports in turn, through Sightline's own modules and their packages."""
    found: set[str] = set()
    waiting, seen = [module], set[str]()
    while waiting:
        name = waiting.pop()
        parents = {name.rsplit(".", count)[0] for count in range(name.count(".") + 1)}
        for own in parents - seen:
            seen.add(own)
            for imported in imports(own, top_level=True):
                if imported.split(".")[0] == "sightline":
                    waiting.append(imported)
                else:
                    found.add(imported.split(".")[0])
    return found


def offenses(module: str) -> Iterator[str]:
    here = room(module)
    for imported in imports(module) | named(module):
        there = room(imported) if imported.split(".")[0] == "sightline" else ""
        if not there or there == here:
            continue
        if here in ORDER:
            allowed = set(ORDER[: ORDER.index(here)]) - BARRED.get(here, set())
            if here == "cli":
                allowed.add("lab")
        elif here == "lab":
            allowed = set(ORDER[: ORDER.index("apps")])
        else:
            allowed = {"cli"} if here == "__main__" else set(ORDER)  # the package itself offers what is public
        if there not in allowed:
            yield f"{module} imports {imported}"


def test_no_two_files_import_each_other() -> None:
    """Also inside functions: every circle of files, found by going from each file along its imports."""
    edges = {name: {other for other in imports(name) if other in MODULES} - {name} for name in MODULES}
    edges.pop("sightline")  # public names are imported when they are used
    found = set()
    for start in edges:
        waiting, seen = [*edges[start]], set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += edges.get(name, ())
        if start in seen:
            found.add(start)
    assert found == set()


def test_a_name_in_a_string_is_an_import() -> None:
    assert "sightline.lab.oracle" in named("sightline.lab.plugin")
    assert not any(
        room(other) == "lab" for name in MODULES if room(name) not in {"lab", "cli"} for other in named(name)
    )


def test_every_folder_is_a_room() -> None:
    assert {room(name) for name in MODULES} <= {"", "__main__", "lab", *ORDER}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    assert list(offenses(module)) == []


@pytest.mark.parametrize(
    "module", [name for name in MODULES if room(name) in {"errors", "config", "records", "endpoint", "study"}]
)
def test_records_and_reports_need_no_torch(module: str) -> None:
    assert {imported.split(".")[0] for imported in imports(module)} & TORCH == set()
    assert third_party(module) & TORCH == set()


def test_the_records_indeed_leave_torch_alone() -> None:
    rooms = "import sys, sightline.cli, sightline.config, sightline.records.manifest, sightline.data.samples"
    code = f"{rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("code", "top_level", "found"),
    [
        ("import torch.nn as nn", True, {"torch.nn"}),
        ("def f():\n    import torch", True, set()),
        ("def f():\n    import torch", False, {"torch"}),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import numpy", True, {"numpy"}),
        ("try:\n    import torch\nexcept ImportError:\n    pass", True, {"torch"}),
        ("class A:\n    import torch", True, {"torch"}),
    ],
)
def test_statements_are_found(code: str, top_level: bool, found: set[str]) -> None:
    nodes = statements(ast.parse(code), top_level=top_level)
    assert {alias.name for node in nodes for alias in node.names} == found
