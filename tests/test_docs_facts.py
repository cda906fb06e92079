"""The pages agree with the package: registries, rooms and modules, generated pages, and the names of papers."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from sightline.builders.registry import BUILDERS
from sightline.losses.table import LOSSES

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
NUMBERS = {
    **{word: number for number, word in enumerate(_ONES, 1)},
    "ten": 10,
    **{word: number for number, word in enumerate(_TEENS, 11)},
    "twenty": 20,
    **{f"twenty-{word}": 20 + number for number, word in enumerate(_ONES, 1)},
    "thirty": 30,
    **{f"thirty-{word}": 30 + number for number, word in enumerate(_ONES, 1)},
}
COUNTED = {"builders": len(BUILDERS), "losses": len(LOSSES)}


def wrong_counts(text: str) -> list[str]:
    """Phrases such as "eleven builders" where there are not as many."""
    found = re.findall(rf"\b([a-z-]+|\d+) ({'|'.join(COUNTED)})\b", text.lower())
    counts = [(number, what, NUMBERS.get(number, int(number) if number.isdigit() else None)) for number, what in found]
    return [f"{number} {what}" for number, what, count in counts if count is not None and count != COUNTED[what]]


def table_of(page: Path, heading: str) -> list[str]:
    """The first column of the first table below a heading, code marks taken off."""
    rows = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].split("\n## ")[0].splitlines()
    return [match.group(1) for row in rows if (match := re.match(r"\| `([a-z0-9-]+)` \|", row))]


def test_a_wrong_number_would_be_found() -> None:
    """Whatever number of builders and losses there is: the right ones in words or digits pass, others do not."""
    words = {number: word for word, number in NUMBERS.items()}
    builders, losses = COUNTED["builders"], COUNTED["losses"]
    assert wrong_counts(f"{words[builders - 1].title()} builders, {words[losses]} losses; all losses.") == [
        f"{words[builders - 1]} builders"
    ]
    assert wrong_counts(f"{builders} builders and {losses - 1} losses") == [f"{losses - 1} losses"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_of_things_are_those_of_their_registry(page: Path) -> None:
    assert wrong_counts(page.read_text(encoding="utf-8")) == []


def test_the_tables_list_every_builder_and_loss_once() -> None:
    assert sorted(table_of(ROOT / "docs/guides/pairs.md", "Builders")) == sorted(BUILDERS)
    assert sorted(table_of(ROOT / "docs/guides/training.md", "Losses")) == sorted(LOSSES)


def test_the_generated_pages_are_up_to_date() -> None:
    spec = spec_from_file_location("generate_reference", ROOT / "docs/generate_reference.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    outdated = [name for name, page in script.PAGES.items() if (ROOT / "docs/reference" / name).read_text() != page()]
    assert not outdated, "run `python docs/generate_reference.py`"


def test_the_design_has_every_room_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/how-it-works/design.md").read_text("utf-8"), flags=re.MULTILINE)
    package = ROOT / "sightline"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    assert len(rows) == len(set(rows)) and set(rows) | {"registry"} == rooms | modules | {"registry"}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/how-it-works/design.md"])
def test_the_modules_of_the_design_exist(name: str) -> None:
    """`room.module` and `room.module.Name` in code marks."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    rooms = "|".join(path.name for path in (ROOT / "sightline").iterdir() if (path / "__init__.py").exists())
    for dotted in re.findall(rf"`(?:sightline\.)?((?:{rooms})\.[\w.]+)[`(]", text):
        parts = dotted.split(".")
        places = [ROOT.joinpath("sightline", *parts[:length]) for length in range(2, len(parts) + 1)]
        assert any(place.is_dir() or place.with_suffix(".py").exists() for place in places), dotted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_pages_name_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:sightline|tests|docs|studies|examples|benchmarks)/[\w/.-]+\w)`", text):
        assert (ROOT / path).exists() or "NAME" in path or "shuffled" in path, path


@pytest.mark.parametrize("folder", ["sightline", "docs", "studies", "examples", "benchmarks", "README.md"])
def test_bdhs_has_the_name_of_the_paper(folder: str) -> None:
    """arXiv 2407.02477: Bias-Driven Hallucination Sampling."""
    place = ROOT / folder
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.suffix in {".py", ".md", ".yaml"}]
    assert files
    wrong = [
        str(path.relative_to(ROOT))
        for path in files
        for text in [path.read_text(encoding="utf-8")]
        for match in re.finditer(r"(\w+)[- ]driven\s+hallucination", text, re.IGNORECASE)
        if match.group(1).lower() != "bias"
    ]
    assert wrong == []
