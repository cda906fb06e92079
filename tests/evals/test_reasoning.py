"""Reasoning in tags: position of the answer, effect on the official metrics, and stripping."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli import app
from sightline.evals.answer_reader import AnswerSource
from sightline.evals.benchmark import AnyMetric, BenchmarkOptions, mean
from sightline.evals.directory import read_result
from sightline.evals.offline_scoring import score_file
from sightline.evals.questions import ReasoningTally, find_reasoning
from sightline.evals.run import EvalConfig
from sightline.evals.scoring import estimate_scores, score_all, score_directory
from sightline.records.hashing import hash_json
from sightline.records.rows import Answer, Sample, Score
from sightline.records.store import write_rows
from tests.evals.benches.pope_lists import questions, write_answers, write_lists


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>It is not clear.</think>\nYes", "Yes"),
        ("<THINKING>a</THINKING>  No.  ", "No."),
        ("It is dim.</think>\n\nNo", "No"),  # the template put the opening tag into the prompt
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a</think><answer> Yes </answer>", "Yes"),
        ("<think>a</think>\n<|begin_of_box|>Yes<|end_of_box|>", "Yes"),
        ("\N{WHITE LEFT-POINTING TRIANGLE}think\N{WHITE RIGHT-POINTING TRIANGLE}a"
         "\N{WHITE LEFT-POINTING TRIANGLE}/think\N{WHITE RIGHT-POINTING TRIANGLE}No", "No"),
        ("[THINK]a[/THINK]Yes", "Yes"),
        ("<think>a</think>", ""),
    ],
)  # fmt: skip
def test_the_answer_follows_the_last_closing_tag(text: str, answer: str) -> None:
    found = find_reasoning(text)
    assert found is not None and (text[found.start : found.end], found.is_cut) == (answer, False)


@pytest.mark.parametrize("text", ["<think>It is", "Yes <think>or", "<think>a</think> <think>b"])
def test_an_unclosed_thought_leaves_an_empty_answer(text: str) -> None:
    found = find_reasoning(text)
    assert found is not None and (text[found.start : found.end], found.is_cut) == ("", True)


@pytest.mark.parametrize("text", ["", "Yes", "a < b", "<b>Yes</b>", "I think so", "[1]"])
def test_other_texts_hold_none(text: str) -> None:
    assert find_reasoning(text) is None


@pytest.fixture
def thinking(tmp_path: Path) -> tuple[Path, Path]:
    """Right answers behind a thought with "not"; the last one is cut off within its thought."""
    lists = write_lists(tmp_path / "pope")
    rows = [
        {"question_id": row["question_id"], "text": f"<think>I do not see all.</think>\n{row['label'].title()}"}
        for row in questions(lists)
    ]
    rows[-1]["text"] = "<think>I do not"
    return lists, write_answers(tmp_path / "answers.jsonl", rows)


def test_the_official_figure_is_kept_and_all_are_touched(thinking: tuple[Path, Path]) -> None:
    lists, answers = thinking
    scored = score_file("pope", answers, BenchmarkOptions(lists, split="random"), resamples=100)
    assert scored.estimates["accuracy"].value == 0.5  # every thought reads as a no
    assert scored.estimates["touched"].value == 24
    assert "24 of 24 answers hold reasoning in tags" in scored.notes[-1] and "--strip-reasoning" in scored.notes[-1]


def test_what_follows_the_reasoning_is_scored_where_it_is_stripped(thinking: tuple[Path, Path], tmp_path: Path) -> None:
    lists, answers = thinking
    source, options = AnswerSource(answers, strip_reasoning=True), BenchmarkOptions(lists, split="random")
    scored = score_file("pope", source, options, out=tmp_path / "out", resamples=100)
    found = {
        name: scored.estimates[name].value for name in ("accuracy", "touched", "empty") if name in scored.estimates
    }
    assert found == {"accuracy": 23 / 24, "touched": 1}  # the empty answer is a yes by the official rule, and wrong
    assert (scored.estimates["reasoning_stripped"].value, scored.estimates["reasoning_cut"].value) == (24, 1)
    assert "1 answers were cut off within their reasoning and are scored as empty" in scored.notes
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["strip_reasoning"] is True
    kept = read_result(tmp_path / "out", "pope")
    assert kept.answers[0].text.startswith("<think>")  # kept whole
    assert "the reasoning in 24 of 24 answers was left out before scoring" in kept.remarks


def test_the_command_strips_and_says_so_in_its_json(thinking: tuple[Path, Path]) -> None:
    lists, answers = thinking
    command = ["score", "pope", "--answers", str(answers), "--data", str(lists), "--split", "random", "--json"]
    plain = json.loads(CliRunner().invoke(app, [*command, "--resamples", "100"]).stdout)
    assert plain["accuracy"]["value"] == 0.5 and "reasoning_stripped" not in plain
    stripped = json.loads(CliRunner().invoke(app, [*command, "--resamples", "100", "--strip-reasoning"]).stdout)
    assert stripped["accuracy"]["value"] == 23 / 24 and stripped["reasoning_stripped"]["value"] == 24


def test_configs_without_the_option_keep_their_hash() -> None:
    plain = EvalConfig(benchmarks=("pope",)).model_dump(mode="json")
    assert "strip_reasoning" not in plain
    assert EvalConfig.model_validate(plain).strip_reasoning is False
    stripped = EvalConfig(benchmarks=("pope",), strip_reasoning=True).model_dump(mode="json")
    assert stripped["strip_reasoning"] is True and hash_json(stripped) != hash_json(plain)


@dataclass(frozen=True)
class Cups:
    """One picture without a cup; naming a cup is a hallucination, whose place is marked."""

    name: str = "cups"
    folder: Path = Path()
    max_new_tokens: int = 4

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return {"cups": mean("cups", "Cups", higher_is_better=False)}

    def samples(self) -> Iterator[Sample]:
        yield Sample(id="0", prompt="What is there?", cluster="0")

    def score(self, sample: Sample, answer: Answer) -> Score:
        place = answer.text.find("cup")
        details: dict[str, Any] = {"hallucinated": [[place, place + 3]]} if place >= 0 else {}
        return Score(sample_id="0", cluster="0", values={"cups": float(place >= 0)}, details=details)


def test_marks_stay_in_the_whole_answer(tmp_path: Path) -> None:
    sample = next(Cups().samples())
    answer = Answer(sample_id="0", cluster="0", text="<think>A cup? No.</think> A cup.", tokens=3, finished=True)
    write_rows(tmp_path / "cups" / "samples.jsonl", [sample])
    write_rows(tmp_path / "cups" / "answers.jsonl", [answer])
    score_directory(Cups(), tmp_path, resamples=100, strip_reasoning=True)
    kept = read_result(tmp_path, "cups")
    [[start, end]] = kept.scores[0].details["hallucinated"]
    assert (start, kept.answers[0].text[start:end]) == (28, "cup")
    assert kept.estimates["words"].value == 2  # of the answer alone


def test_other_benchmarks_count_reasoning_as_touched() -> None:
    pair = (next(Cups().samples()), Answer(sample_id="0", cluster="0", text="<think>Hm.</think> A plate."))
    tally = ReasoningTally()
    estimates = estimate_scores(Cups(), score_all(Cups(), [pair], tally), resamples=100)
    assert (estimates["touched"].value, tally.found, tally.cut, tally.answers) == (1, 1, 0, 1)
