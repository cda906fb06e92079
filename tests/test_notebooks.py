"""The tutorials of docs/notebooks: stored outputs are clean, and, slow, every cell runs in a real kernel."""

import ast
import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def cells_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """The cells of one kind."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def runner() -> ModuleType:
    """docs/run_notebooks.py as a module."""
    spec = spec_from_file_location("run_notebooks", ROOT / "docs/run_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_three_numbered_tutorials() -> None:
    assert [path.name.partition("-")[0] for path in NOTEBOOKS] == ["1", "2", "3"]
    for path in NOTEBOOKS:
        assert "".join(cells_of(path, "markdown")[0]["source"]).startswith(f"# {path.name[0]}. ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_code_parses(path: Path) -> None:
    for cell in cells_of(path, "code"):
        ast.parse(re.sub(r"\A%%writefile .*\n", "", "".join(cell["source"])))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_small_and_of_no_machine(path: Path) -> None:
    cells = cells_of(path, "code")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run docs/run_notebooks.py"
    assert path.stat().st_size < 600_000
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    text = json.dumps([output for cell in cells for output in cell["outputs"]])
    assert not re.search(r"\\u001b|site-packages|\.venv|/home/|/work/|/tmp/|Traceback|Warning", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for cell in cells_of(path, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", "".join(cell["source"])):
            assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory; a cell that raises an exception ends the test."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = runner().run_notebook(path, tmp_path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert (tmp_path / f"runs/notebook-{path.name[0]}").is_dir()
