"""What the pages say of the registries is what the registries hold, and names are those of the papers."""

import re
from pathlib import Path

import pytest

from sightline.builders.registry import BUILDERS
from sightline.losses.table import LOSSES

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
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
    assert wrong_counts("Eleven builders, twenty-one losses; all losses.") == ["eleven builders"]
    assert wrong_counts("13 builders and 20 losses") == ["20 losses"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_of_things_are_those_of_their_registry(page: Path) -> None:
    assert wrong_counts(page.read_text(encoding="utf-8")) == []


def test_the_tables_list_every_builder_and_loss_once() -> None:
    assert sorted(table_of(ROOT / "docs/pairs.md", "Builders")) == sorted(BUILDERS)
    assert sorted(table_of(ROOT / "docs/training.md", "Losses")) == sorted(LOSSES)


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
