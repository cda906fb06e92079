"""The whole report from realistic directories: complete, self-contained, escaped, reproducible, without torch."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.records.manifest import Computed, read_manifest
from sightline.records.store import write_json
from sightline.report.comparison import Results
from sightline.report.formatting import effect_text, p_text
from sightline.report.gallery import evenly
from sightline.report.page import write_report
from tests.study.directories import HOSTILE, evaluation, whole_run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, text and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return whole_run(tmp_path_factory.mktemp("run"))


def report(run: dict[str, Path], out: Path) -> Results:
    return write_report(
        out, base=run["base"], aligned=[run["aligned-0"]], trainings=[run["train-0"]], pairs=run["pairs"], resamples=500
    )


@pytest.fixture(scope="module")
def written(run: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    report(run, out)
    return out


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_complete(page: Page, written: Path) -> None:
    assert page.open == []
    results = json.loads((written / "results.json").read_text(encoding="utf-8"))
    assert " ".join(results["headline"].split()) in page.text
    for heading in ("At a glance", "All numbers", "Training", "The pairs it learned from", "Answers before", "Methods"):
        assert heading in page.text
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert all((link["href"] or "")[1:] in ids for link in page.all("a"))
    assert len(page.all("figure")) == 7


def test_every_number_of_results_has_its_interval_and_n(written: Path) -> None:
    results = json.loads((written / "results.json").read_text(encoding="utf-8"))
    rows = [metric for benchmark in results["benchmarks"].values() for metric in benchmark["metrics"].values()]
    assert len(rows) == 2 * 8 + 2 * 12  # a yes ratio of descriptions would be undefined
    for row in rows:
        for side in ("base", "aligned", "difference"):
            assert set(row[side]) == {"value", "stderr", "ci95", "n", "unscored"}
            assert row[side]["n"] > 0
            assert row[side]["ci95"] is not None
    assert results["verdicts"] == {
        word: sum(row["verdict"] == word for row in rows) for word in {row["verdict"] for row in rows}
    }
    assert results["benchmarks"]["shapes"]["metrics"]["hallucinating"]["verdict"] == "better"
    assert Results.model_validate(results).seeds == 1


def test_nothing_comes_from_elsewhere_and_nothing_runs(page: Page) -> None:
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "link", "form", "base"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#"))
    raw = "".join(value or "" for _, attributes in page.elements for value in attributes.values())
    assert "url(http" not in raw
    assert "default-src 'none'" in str(page.all("meta"))


def test_hostile_text_is_only_text(page: Page, written: Path) -> None:
    shown = " ".join(HOSTILE.split())
    assert page.text.count(shown) >= 4  # a prompt, an answer, provenance, settings
    assert "{{ 7 * 7 }}" in page.text
    markdown = (written / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "\\[a\\](javascript:1)\\|" in markdown
    assert set(re.findall(r"</?(\w+)", markdown)) == {"b"}


def test_pictures_have_words_and_missing_ones_a_place(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) > 20
    assert all(
        (picture["alt"] or "").strip() and (picture["src"] or "").startswith("data:image/png;base64,")
        for picture in pictures
    )
    plots = [a for tag, a in page.elements if tag == "div" and a.get("role") == "img"]
    assert all(len(plot["aria-label"] or "") > 30 for plot in plots)
    assert re.search(r"Loss over the training steps: loss from 0\.[56]\d to 0\.0\d\.", str(plots))
    assert "picture not available" in page.text  # the damaged one


def test_words_that_differ_or_are_absent_are_marked(page: Page) -> None:
    kinds = [mark["class"] for mark in page.all("mark")]
    assert kinds.count("chosen") >= 12
    assert kinds.count("rejected") >= 12
    assert kinds.count("absent") >= 8
    assert "Mended: hallucinated before, not after" in page.text


def test_markdown_has_the_same_table(written: Path) -> None:
    results = Results.model_validate_json((written / "results.json").read_text(encoding="utf-8"))
    lines = (written / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if re.match(r"\| .+ \| (natural|counter-prior) \|", line)]
    assert len(rows) == sum(len(benchmark.metrics) for benchmark in results.benchmarks.values())
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 10 for row in rows)
    numbers = [m for b in results.benchmarks.values() for m in b.metrics.values()]
    cells = [re.split(r"(?<!\\)\|", row) for row in rows]
    assert sorted(html.unescape(cell[7].strip()) for cell in cells) == sorted(p_text(m.p_holm) for m in numbers)
    shown = [effect_text(m.smallest_effect, m.unit) if m.smallest_effect else "" for m in numbers]
    assert sorted(cell[9].strip() for cell in cells) == sorted(shown)
    assert sum("| better |" in row for row in rows) == results.verdicts["better"]


def test_remarks_stand_by_their_benchmark_with_their_side(page: Page, written: Path) -> None:
    results = json.loads((written / "results.json").read_text(encoding="utf-8"))
    own = f"one rule is our own {HOSTILE}"  # what all sides say is said once
    sides = ["base: 0 of 60 answers were made up", "aligned: 1 of 60 answers were made up"]
    assert results["benchmarks"]["shapes"]["remarks"] == [own, *sides]
    assert results["benchmarks"]["shapes-counter"]["remarks"] == []
    for line in (own, *sides):
        assert page.text.count(" ".join(f"shapes, {line}".split())) == 1
    assert page.text.count("How it was scored") == 1
    lines = (written / "report.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "made up" in line] == [f"- shapes, {side}" for side in sides]


def test_p_and_the_smallest_effect_stand_in_every_row(page: Page, written: Path) -> None:
    results = Results.model_validate_json((written / "results.json").read_text(encoding="utf-8"))
    numbers = [m for b in results.benchmarks.values() for m in b.metrics.values()]
    tested = [m for m in numbers if m.p_holm is not None]
    assert tested == [m for m in numbers if m.higher_is_better is not None]
    words = r"better|worse|within noise"
    assert sorted(re.findall(rf"((?:{words}) p [<.\d]+)", page.text)) == sorted(
        f"{m.verdict} p {p_text(m.p_holm)}" for m in tested
    )
    shown = [m for m in numbers if m.smallest_effect]
    assert sorted(re.findall(r"would show (\d+\.\d+(?: points)?)", page.text)) == sorted(
        effect_text(m.smallest_effect or 0.0, m.unit) for m in shown
    )


def test_same_records_same_bytes(run: dict[str, Path], written: Path, tmp_path: Path) -> None:
    report(run, tmp_path)
    for name in ("report.html", "report.md", "results.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_optional_parts_are_absent_with_a_sentence(tmp_path: Path) -> None:
    wrong = {"shapes-ask": 0.2}
    base = evaluation(tmp_path / "base", tmp_path / "pictures", wrong, count=8)
    after = evaluation(tmp_path / "after", tmp_path / "pictures", wrong, count=8, seed=1)
    (base / "manifest.json").unlink()
    write_report(tmp_path / "out", base=base, aligned=[after], resamples=200)
    text = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text
    assert "No training directory was given" in text
    assert "No directory of pairs was given" in text
    assert "No benchmark here judges the words" in text
    assert "has no manifest" in text


def test_several_seeds_are_reported_together(run: dict[str, Path], tmp_path: Path) -> None:
    more = whole_run(tmp_path, seeds=(1, 2), count=60)
    results = write_report(
        tmp_path / "out",
        base=run["base"],
        aligned=[run["aligned-0"], more["aligned-1"], more["aligned-2"]],
        trainings=[run["train-0"], more["train-1"], more["train-2"]],
        resamples=300,
    )
    assert results.seeds == 3
    text = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text
    assert "means over 3 training seeds" in text
    assert "by seed:" in text
    assert "3 runs of together 360 steps" in text


def test_what_is_missing_or_of_another_kind_is_named(run: dict[str, Path], tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"base": tmp_path / "nowhere"}, "--base .*nowhere is not a directory"),
        ({"aligned": [run["train-0"]]}, "holds no finished benchmark"),
        ({"trainings": [run["base"]]}, r"--train .*has no log\.jsonl with steps"),
        ({"pairs": run["train-0"]}, r"neither pairs\.jsonl nor"),
        ({"aligned": []}, "no aligned model"),
    ]
    for change, message in cases:
        given = {"base": run["base"], "aligned": [run["aligned-0"]], **change}
        with pytest.raises(InputError, match=message):
            write_report(tmp_path / "out", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_no_torch_is_needed(run: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sightline.report.page import write_report; "
        "out, base, aligned, train, pairs = map(Path, sys.argv[1:]); "
        "write_report(out, base=base, aligned=[aligned], trainings=[train], pairs=pairs, resamples=200); "
        "assert not {'torch', 'transformers', 'sightline.lab'} & set(sys.modules)"
    )
    paths = [tmp_path, run["base"], run["aligned-0"], run["train-0"], run["pairs"]]
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)


def test_evenly_picks_across_the_whole() -> None:
    assert evenly(range(10), 3) == [1, 5, 8]
    assert evenly(range(2), 5) == [0, 1]
    assert evenly([], 5) == []


def test_methods_say_what_each_stage_was_computed_in(run: dict[str, Path], tmp_path: Path) -> None:
    """By its manifest, and nothing of manifests that have no such record."""
    copies = {name: tmp_path / name for name in ("base", "aligned-0", "train-0", "pairs")}
    for name, folder in copies.items():
        shutil.copytree(run[name], folder)
    record = Computed(device="cuda", device_name="A <card>", dtype="bfloat16", autocast=True)
    path = copies["train-0"] / "manifest.json"
    write_json(path, read_manifest(path.parent).model_copy(update={"computed": (record,)}))
    report(copies, tmp_path / "out")
    words = "train-0 was computed on A <card> (cuda), weights in bfloat16, with bfloat16 autocast."
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert words in page.text and page.text.count("was computed on") == 1
    assert "was computed on A" in (tmp_path / "out/report.md").read_text(encoding="utf-8")
