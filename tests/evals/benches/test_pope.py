"""POPE by its official files and rule: cells by hand, parity with the published steps, splits, ids and order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sightline.cli import app
from sightline.errors import InputError
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.offline_scoring import ScoredFile, score_file
from tests.evals.benches.pope_lists import questions, reference, write_answers, write_lists

TEXTS = (
    "Yes.",
    "No, there is none.",
    "",
    "NO",
    "no",
    "There is not, sorry",
    "Yes, no doubt",
    "It is. Not there.",
    "No\n",
)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lists(tmp_path_factory.mktemp("pope"))


def score(answers: Path, lists: Path, split: str | None = "random", name: str = "pope") -> ScoredFile:
    return score_file(name, answers, BenchmarkOptions(lists, split=split), resamples=100)


def values(scored: ScoredFile) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in scored.estimates.items()}


def test_every_figure_is_the_published_one(lists: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    listed = questions(lists)
    for _ in range(20):
        texts = [str(rng.choice(TEXTS)) for _ in listed]
        rows = [{"question_id": q["question_id"], "answer": text} for q, text in zip(listed, texts, strict=True)]
        found = values(score(write_answers(tmp_path / "a.jsonl", rows), lists))
        expected = reference(texts, [q["label"] for q in listed])
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-15)


def test_what_a_quirk_decided_is_counted(lists: Path, tmp_path: Path) -> None:
    """Of nine texts, five are read against sense: none, "NO", "Yes, no doubt", "It is. Not there." and "No\\n"."""
    listed = questions(lists)[: len(TEXTS)]
    rows = [{"question_id": q["question_id"], "answer": text} for q, text in zip(listed, TEXTS, strict=True)]
    result = score(write_answers(tmp_path / "a.jsonl", rows), lists)
    assert result.estimates["touched"].value == 5
    assert (result.estimates["accuracy"].n, result.estimates["accuracy"].unscored) == (9, 15)
    assert result.notes == (
        "15 of 24 samples have no answer and are unscored",
        "5 of 9 answers were decided by an official default or quirk",
    )


def test_without_a_split_each_counts_and_the_mean_of_the_three(lists: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows, expected = [], {}
    for split in ("random", "popular", "adversarial"):
        listed = questions(lists, split)
        texts = [str(rng.choice(("Yes", "No"))) for _ in listed]
        expected[split] = reference(texts, [q["label"] for q in listed])
        rows += [
            {"question_id": q["question_id"], "category": split, "text": text, "prompt": q["text"]}
            for q, text in zip(listed, texts, strict=True)
        ]
    result = score(write_answers(tmp_path / "a.jsonl", rows[::-1]), lists, split=None)  # the order does not matter
    found = values(result)
    for split, figures in expected.items():
        assert {name: found[f"{split}_{name}"] for name in figures} == pytest.approx(figures)
        assert (result.estimates[f"{split}_f1"].n, result.estimates[f"{split}_f1"].unscored) == (24, 0)
    for name in ("f1", "accuracy", "precision", "recall", "yes_ratio"):
        assert found[name] == pytest.approx(sum(figures[name] for figures in expected.values()) / 3)
    assert found["tp"] == sum(figures["tp"] for figures in expected.values())
    assert (result.estimates["f1"].n, result.estimates["f1"].unscored) == (72, 0)
    assert result.estimates["f1"].ci95 is not None


def test_official_answers_have_no_ids_and_go_by_order(lists: Path, tmp_path: Path) -> None:
    listed = questions(lists)
    rows = [{"question": q["text"].lower(), "answer": "no" if n % 3 else "yes"} for n, q in enumerate(listed)]
    result = score(write_answers(tmp_path / "a.jsonl", rows), lists)
    expected = reference([row["answer"] for row in rows], [q["label"] for q in listed])
    assert values(result)["f1"] == pytest.approx(expected["f1"])
    with pytest.raises(InputError, match=r"line 1: answers 'is there a dog .*' where the list asks 'Is there a cup"):
        score(write_answers(tmp_path / "b.jsonl", rows[1:]), lists)
    with pytest.raises(InputError, match="line 25: there are only 24 questions"):
        score(write_answers(tmp_path / "c.jsonl", [*rows, {"answer": "yes"}]), lists)


def test_our_own_records_score_alike_with_and_without_a_split(lists: Path, tmp_path: Path) -> None:
    rows = [
        {"sample_id": f"random/{q['question_id']}", "cluster": "", "text": "Yes", "tokens": 2, "finished": True}
        for q in questions(lists)
    ]
    one = score(write_answers(tmp_path / "a.jsonl", rows), lists)
    assert one.estimates["tokens"].value == 2.0 and one.estimates["f1"].value == pytest.approx(2 / 3)
    every = score(tmp_path / "a.jsonl", lists, split=None)
    assert every.estimates["random_f1"] == one.estimates["f1"].model_copy(
        update={"ci95": every.estimates["random_f1"].ci95, "stderr": every.estimates["random_f1"].stderr}
    )
    assert (every.estimates["popular_f1"].value, every.estimates["popular_f1"].unscored) == (None, 24)


@pytest.mark.parametrize(("name", "source", "middle"), [("pope-aokvqa", "aokvqa", "seem_"), ("pope-gqa", "gqa", "")])
def test_lists_of_other_pictures(name: str, source: str, middle: str, tmp_path: Path) -> None:
    folder = write_lists(tmp_path / "output" / source, source=source, middle=middle)
    rows = [{"question_id": number, "answer": "no"} for number in range(1, 25)]
    result = score(write_answers(tmp_path / "a.jsonl", rows), folder.parents[1], name=name)
    assert values(result)["accuracy"] == 0.5


def test_mistakes_are_one_sentence(lists: Path, tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "a.jsonl", [{"question_id": 1, "answer": "yes"}])
    with pytest.raises(InputError, match=r"needs coco_pope_popular\.json in .*AoiDragon/POPE"):
        score(answers, tmp_path, "popular")
    with pytest.raises(InputError, match="no split 'hard'; there are: random, popular, adversarial"):
        score(answers, lists, "hard")
    with pytest.raises(InputError, match="occurs in every split"):
        score(answers, lists, None)
    with pytest.raises(InputError, match=r"no answer matches a sample.*'random/24'.*line 1 answers 'random/99'"):
        score(write_answers(tmp_path / "b.jsonl", [{"question_id": 99, "answer": "yes"}]), lists)
    broken = write_lists(tmp_path / "broken")
    (broken / "coco_pope_random.json").write_text('{"question_id": 1, "image": "a.jpg", "text": "?"}\n')
    with pytest.raises(InputError, match=r"coco_pope_random\.json line 1: label = None is not text"):
        score(answers, broken)


def test_the_command_prints_one_object_and_needs_no_torch(lists: Path, tmp_path: Path) -> None:
    rows = [{"question_id": q["question_id"], "answer": "Yes" if q["label"] == "yes" else ""} for q in questions(lists)]
    rows += [rows[0], {"question_id": 77, "answer": "yes"}]
    answers = write_answers(tmp_path / "a.jsonl", rows)
    code = (
        # Not `sys.modules["torch"] = None`: scipy looks there for whether torch was imported.
        "import sys\nclass NoTorch:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError('torch is not to be had')\n"
        "sys.meta_path.insert(0, NoTorch())\nfrom sightline.cli import main\n"
        f"sys.argv = ['sightline', 'score', 'pope', '--answers', {str(answers)!r}, '--data', {str(lists)!r},"
        " '--split', 'random', '--json', '--out', sys.argv[1]]\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=True, env=os.environ
    )
    printed = json.loads(done.stdout)
    assert printed["tp"]["value"] == 12 and printed["fp"]["value"] == 12 and printed["touched"]["value"] == 12
    assert set(printed["f1"]) == {"value", "stderr", "ci95", "n", "unscored"}
    assert "1 answers repeat a sample that already has one; the first is scored" in done.stderr
    assert "1 answers match no sample of the benchmark" in done.stderr and "line 26 answers 'random/77'" in done.stderr
    kept = json.loads((tmp_path / "out" / "pope" / "estimates.json").read_text())
    assert kept == printed


LLAVA = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}


def test_llavas_one_file_of_all_lists_scores_right_as_it_is(lists: Path, tmp_path: Path) -> None:
    """Ids continue from list to list, rows name no list, and adversarial comes first."""
    rng = np.random.default_rng(2)
    rows, expected = [], {}
    for split, before in LLAVA.items():
        listed = questions(lists, split)
        texts = [str(rng.choice(("Yes", "No", "No, not"))) for _ in listed]
        expected[split] = reference(texts, [q["label"] for q in listed])
        rows += [
            {"question_id": before + q["question_id"], "prompt": f"{q['text']}\nAnswer with one word.", "text": text}
            for q, text in zip(listed, texts, strict=True)
        ]
    path = write_answers(tmp_path / "llava.jsonl", rows)
    for split, figures in expected.items():
        result = score(path, lists, split)
        assert {name: values(result)[name] for name in figures} == pytest.approx(figures, abs=1e-15)
        assert (result.estimates["f1"].n, result.estimates["f1"].unscored) == (24, 0)
    every = score(path, lists, None)
    assert values(every)["f1"] == pytest.approx(sum(figures["f1"] for figures in expected.values()) / 3)
    assert every.notes == ()


def test_answers_to_another_list_get_no_figure(lists: Path, tmp_path: Path) -> None:
    """The ids are the list's, but most questions are not; with image names the same questions are found."""
    rows = [
        {"question_id": q["question_id"], "prompt": q["text"], "text": "Yes"} for q in questions(lists, "adversarial")
    ]
    with pytest.raises(InputError, match=r"no answer has the question .* under its id .*line 1 asks 'Is there a"):
        score(write_answers(tmp_path / "a.jsonl", rows), lists, "random")
    pictures = [{**row, "image": q["image"]} for row, q in zip(rows, questions(lists, "adversarial"), strict=True)]
    result = score(write_answers(tmp_path / "b.jsonl", pictures), lists, "random")
    assert (values(result)["accuracy"], result.estimates["accuracy"].n) == (
        0.5,
        24,
    )  # the same questions in another order
    assert "24 answers were matched by image and question; their ids belong to other questions" in result.notes


def test_the_models_key_wins_over_the_truth(lists: Path, tmp_path: Path) -> None:
    rows = [
        {"question_id": q["question_id"], "question": q["text"], "answer": q["label"], "pred": "Yes"}
        for q in questions(lists)
    ]
    assert values(score(write_answers(tmp_path / "a.jsonl", rows), lists))["accuracy"] == 0.5


def test_labels_in_capitals_are_read_and_others_refused(tmp_path: Path) -> None:
    data = write_lists(tmp_path / "capitals")
    path = data / "coco_pope_random.json"
    path.write_text(path.read_text().replace('"yes"', '"Yes"').replace('"no"', '" No"'))
    rows = [{"question_id": q["question_id"], "text": q["label"].strip()} for q in questions(data)]
    found = values(score(write_answers(tmp_path / "a.jsonl", rows), data))
    assert (found["accuracy"], found["tp"], found["tn"]) == (1.0, 12, 12)
    path.write_text(path.read_text().replace('" No"', '"maybe"', 1))
    with pytest.raises(InputError, match=r"random\.json line 2: label = 'maybe' is neither yes nor no"):
        score(tmp_path / "a.jsonl", data)


def test_ids_that_pandas_made_floats(lists: Path, tmp_path: Path) -> None:
    rows = [{"question_id": float(q["question_id"]), "text": "Yes"} for q in questions(lists)]
    result = score(write_answers(tmp_path / "a.jsonl", rows), lists)
    assert (values(result)["accuracy"], result.notes) == (0.5, ())
    table = "".join(f"{q['question_id']}.0\tYes\n" for q in questions(lists))
    (tmp_path / "a.tsv").write_text(f"question_id\tprediction\n{table}")
    assert values(score(tmp_path / "a.tsv", lists))["accuracy"] == 0.5


def test_a_row_of_vlmevalkit_answers_in_every_list_that_it_names(lists: Path, tmp_path: Path) -> None:
    """Each question on an image occurs once, with all lists that have it; its index is not an id of the lists."""
    splits_by_question: dict[tuple[str, str], list[str]] = {}
    for split in LLAVA:
        for q in questions(lists, split):
            splits_by_question.setdefault((q["image"], q["text"]), []).append(split)
    lines = [
        f"{number}\t{text}\tYes\t{','.join(splits)}\t{image}\t{'No' if 'cup' in text else 'Yes'}\n"
        for number, ((image, text), splits) in enumerate(splits_by_question.items())
    ]
    (tmp_path / "a.tsv").write_text("index\tquestion\tanswer\tcategory\timage_path\tprediction\n" + "".join(lines))
    result = score(tmp_path / "a.tsv", lists, None)
    for split in LLAVA:
        texts = ["No" if "cup" in q["text"] else "Yes" for q in questions(lists, split)]
        expected = reference(texts, [q["label"] for q in questions(lists, split)])
        assert values(result)[f"{split}_f1"] == pytest.approx(expected["f1"])
        assert (result.estimates[f"{split}_f1"].n, result.estimates[f"{split}_f1"].unscored) == (24, 0)
    (tmp_path / "b.tsv").write_text("index\tcategory\tprediction\n1\tpopular, adversarial\tNo\n2\trandom\tNo\n")
    assert score(tmp_path / "b.tsv", lists).notes[1] == (
        f"1 answers match no sample of the benchmark ({tmp_path / 'b.tsv'} line 2 answers 'popular/1')"
    )


def test_the_command_takes_the_key_of_the_answer(lists: Path, tmp_path: Path) -> None:
    rows = [{"question_id": q["question_id"], "answer": q["label"], "her_output": "Yes"} for q in questions(lists)]
    answers = write_answers(tmp_path / "a.jsonl", rows)
    command = ["score", "pope", "--answers", str(answers), "--data", str(lists), "--split", "random", "--json"]
    refused = CliRunner().invoke(app, [*command, "--resamples", "100"])
    assert refused.exit_code != 0 and "her_output = 'Yes'" in str(refused.exception) + refused.output
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, [*command, "--resamples", "100", "--answer-key", "her_output", "--out", str(out)], catch_exceptions=False
    )
    assert json.loads(done.stdout)["accuracy"]["value"] == 0.5
    assert json.loads((out / "manifest.json").read_text())["config"]["answer_key"] == "her_output"
