"""A hook of mkdocs: every notebook of docs/notebooks is a page, with the outputs that are stored in it."""

import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SUFFIX = ".ipynb"


class NotebookFile(File):
    """A notebook that mkdocs treats as a Markdown file, so that links to it and its own links are checked."""

    def is_documentation_page(self) -> bool:
        """Return True: it becomes a page."""
        return True

    @property
    def content_string(self) -> str:
        """The notebook as Markdown."""
        assert self.abs_src_path is not None
        return to_markdown(Path(self.abs_src_path))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace notebooks, which mkdocs would copy, by pages."""
    for file in list(files):
        if file.src_uri.endswith(SUFFIX):
            files.remove(file)
            files.append(NotebookFile(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


def to_markdown(path: Path) -> str:
    """A notebook's cells and stored outputs as Markdown, with a note on how to run it below the title."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [part for cell in cells for part in _cell(cell)]
    note = f'!!! tip "Run it"\n    This page is the notebook `docs/notebooks/{path.name}`; open it with Jupyter.'
    title, _, rest = parts[0].partition("\n")
    return "\n\n".join([title, note, rest.strip(), *parts[1:]]) + "\n"


def _cell(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [_fenced(source, "python"), *(_output(output) for output in cell["outputs"])]


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _block(_fenced("".join(output["text"]).rstrip(), "text"))
    data = {kind: "".join(value) for kind, value in output["data"].items() if isinstance(value, list | str)}
    if "image/png" in data:
        picture = base64.b64encode(base64.b64decode(data["image/png"])).decode()  # one line
        return _block(f'<img alt="output of the cell above" src="data:image/png;base64,{picture}">')
    if "text/html" in data:
        lines = (line.strip() for line in data["text/html"].splitlines())
        return _block(f'<div class="frame">{"".join(line for line in lines if line)}</div>')
    return _block(_fenced(data["text/plain"], "text"))


def _block(content: str) -> str:
    return f'<div class="output" markdown="1">\n\n{content}\n\n</div>'


def _fenced(text: str, language: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
