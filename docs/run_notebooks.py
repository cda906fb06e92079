"""Run the tutorials of docs/notebooks in a real Jupyter kernel and write their outputs into them.

    python docs/run_notebooks.py [NAME ...]

Needs the packages of `sightline[notebooks]`. Each notebook runs in an empty directory; progress and warnings, which go
to stderr, and colors are left out.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent / "notebooks"
COLORS = re.compile(r"\x1b\[[0-9;]*m")


def run_notebook(path: Path, folder: Path) -> Any:
    """The notebook with fresh outputs, run with `folder` as its working directory.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises an exception.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:
                    output.text = COLORS.sub("", output.text)  # Jupyter asks programs for colors
    return notebook


def main(names: list[str]) -> None:
    """Run all notebooks, or those whose file names begin with one of `names`."""
    import nbformat

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and not path.name.startswith(tuple(names)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = run_notebook(path, Path(folder))
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
