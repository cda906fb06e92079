"""Writer of the tables and headlines that README and docs quote from docs/results/*.json.

    python docs/generate_results.py            rewrite the parts between the marks
    python docs/generate_results.py --check    compare instead of writing; exit code 1 if a page is out of date

`sightline study export docs/results/NAME.json --out DIR` writes the numbers of a finished study. A page quotes them
between `<!-- results NAME: PART -->` and `<!-- /results -->`, where PART is one of

    table BENCH/METRIC, ...    the arms' differences to the baseline; without metrics, all that were exported
    headline                   what the study's contrasts mean
    contrasts                  the numbers of the contrasts
    claims                     published claims, our differences and the verdicts
"""

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.errors import InputError
from sightline.records.store import read_json
from sightline.report.formatting import MINUS, NARROW, difference_text, interval_text, p_text, value_text
from sightline.study.report.headlines import contrast_sentences, headline_sentence
from sightline.study.report.published import PublishedResults
from sightline.study.report.words import name, starred
from sightline.study.results import ArmFinding

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
PART = re.compile(r"(<!-- results ([\w-]+): (\w+)(.*?) -->\n).*?(<!-- /results -->)", re.DOTALL)
WIDTH = 120


def main() -> int:
    """Write or compare the pages; the exit code."""
    check = "--check" in sys.argv[1:]
    outdated = list(outdated_pages())
    for page, text in outdated:
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: {page.relative_to(ROOT)}")
    return int(check and bool(outdated))


def outdated_pages() -> Iterator[tuple[Path, str]]:
    """Each page whose quoted parts are not those of the results, with its new text."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        new = with_results(text, page)
        if new != text:
            yield page, new


def with_results(text: str, page: Path, folder: Path = RESULTS) -> str:
    """A page's text with its quoted parts written anew from the JSON files of `folder`."""

    def part(found: re.Match[str]) -> str:
        opening, file, kind, rest, closing = found.groups()
        if kind not in PARTS:
            raise InputError(f"{page}: results have no part {kind!r}; the parts are {', '.join(PARTS)}")
        results = PublishedResults.model_validate(read_json(folder / f"{file}.json"))
        link = os.path.relpath(folder / f"{file}.json", page.parent)
        return f"{opening}{PARTS[kind](results, rest.strip(), link)}{closing}"

    return PART.sub(part, text)


def table_part(results: PublishedResults, metrics: str, link: str) -> str:
    """Arms by metrics: differences to the baseline, whose values are in the head."""
    known = list(dict.fromkeys(f"{found.benchmark}/{found.metric}" for found in results.findings))
    keys = [key.strip() for key in metrics.split(",")] if metrics else known
    if missing := [key for key in keys if key not in known]:
        raise InputError(f"{link} has no metric {missing[0]!r}; it has {', '.join(known)}")
    by_key = {(found.arm, f"{found.benchmark}/{found.metric}"): found for found in results.findings}
    arms = dict.fromkeys(found.arm for found in results.findings if found.difference is not None)
    columns = [[by_key[arm, key] for arm in arms if (arm, key) in by_key] for key in keys]
    base = [found for found in results.findings if found.difference is None]
    heads = [_head(column[0], base) for column in columns]
    rows = [[f"`{arm}`", *(_cell(by_key.get((arm, key))) for key in keys)] for arm in arms]
    images = sorted({found.images for column in columns for found in column})
    points = " in points" if all(column[0].unit == "share" for column in columns) else ""
    caption = (
        f"Differences to {name(results.baseline)}{points}, with 95 % intervals over"
        f" {' to '.join(f'{count:,}' for count in (images[0], images[-1])[len(images) == 1 :])} images and"
        f" {_seeds(results)}; a star: p below 5 % by Holm over all differences of the study"
        f" ([numbers]({link}){_revisions(results)})."
    )
    return f"{_wrapped(caption)}\n{_table(['arm', *heads], rows)}"


def headline_part(results: PublishedResults, _: str, __: str) -> str:
    """The headline in bold."""
    return _wrapped(f"**{headline_sentence(results)}**")


def contrasts_part(results: PublishedResults, _: str, __: str) -> str:
    """The sentences with the numbers of the contrasts, as a list."""
    return "".join(
        textwrap.fill(f"- {_plain(sentence)}", WIDTH, subsequent_indent="  ", break_on_hyphens=False) + "\n"
        for sentence in contrast_sentences(results)
    )


def claims_part(results: PublishedResults, _: str, __: str) -> str:
    """Claims with the published figures, ours and the verdict."""
    rows = [
        [
            claim.says,
            claim.there,
            f"{claim.arm} - {claim.against}, {claim.benchmark}/{claim.metric}"
            + (f", {claim.asks()}" if claim.asks() else "")
            + f": {claim.ours()}",
            p_text(claim.p_holm),
            f"**{claim.word}**",
        ]
        for claim in results.claims
    ]
    return _table(["claim", "published", "ours, in points where shares are compared", "p (Holm)", "verdict"], rows)


PARTS = {"table": table_part, "headline": headline_part, "contrasts": contrasts_part, "claims": claims_part}


def _head(first: ArmFinding, base: Sequence[ArmFinding]) -> str:
    values = [
        f"{name(found.arm).removeprefix('the ')} {value_text(found.value.value, found.unit)}"
        for found in base
        if (found.benchmark, found.metric) == (first.benchmark, first.metric)
    ]
    return f"{first.label} ({', '.join([first.benchmark, *values])})"


def _cell(found: ArmFinding | None) -> str:
    if found is None or found.difference is None:
        return ""
    interval = interval_text(found.difference.ci95, found.unit, signed=True)
    star = " \\*" if starred(found) else ""
    return f"{difference_text(found.difference.value, found.unit)} ({interval}){star}"


def _seeds(results: PublishedResults) -> str:
    return "one seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"


def _revisions(results: PublishedResults) -> str:
    """The revisions that made the numbers; `-dirty` is a working tree with changes."""
    short = [each[:7] + each[40:] for each in results.revisions]
    return f", revision {', '.join(short)}" if short else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    cells = [[" ".join(_plain(cell).replace("|", "\\|").split()) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _wrapped(text: str) -> str:
    return textwrap.fill(_plain(text), WIDTH, break_on_hyphens=False, break_long_words=False) + "\n"


def _plain(text: str) -> str:
    """Text with the signs that the rest of the pages uses."""
    return text.replace(MINUS, "-").replace(NARROW, " ")


if __name__ == "__main__":
    sys.exit(main())
