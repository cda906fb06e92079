"""The pages of docs/reference/api: every public name is on one of them, and every name on them exists."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import sightline as sl

PAGES = sorted((Path(__file__).parents[1] / "docs/reference/api").glob("*.md"))
SHOWN = [name for page in PAGES for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), flags=re.MULTILINE)]


def test_every_public_name_is_on_one_page() -> None:
    last = [name.rpartition(".")[2] for name in SHOWN]
    assert len(set(last)) == len(last)
    assert set(sl.__all__) - {"__version__", "losses"} <= set(last)
    assert {"::: sightline.train", "::: sightline.report"}.isdisjoint(SHOWN)  # these are rooms to a reader of files


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_exists_and_is_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    value = getattr(import_module(module), attribute)
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", ["build_pairs", "compare", "evaluate", "load", "loss", "report", "train"])
def test_stages_document_every_parameter(name: str) -> None:
    stage = getattr(import_module("sightline.api.stages"), name)
    doc = inspect.getdoc(stage) or ""
    documented = re.findall(r"^    (\w+): ", doc.partition("Args:")[2].partition("\n\n")[0], flags=re.MULTILINE)
    assert sorted(documented) == sorted(inspect.signature(stage).parameters)
    assert "Raises:" in doc and "Examples:" in doc
