"""The stage on a real tiny model: answers, scores and estimates; killed and resumed; torn, foreign and broken input."""

import json
from pathlib import Path

import pytest
import torch

import sightline.evals.run as run
from sightline.errors import InputError
from sightline.evals.directory import read_evaluation, read_result
from sightline.evals.registry import BENCHMARKS
from sightline.evals.run import EvalConfig, EvalRuntime, evaluate
from sightline.evals.scoring import score_directory
from sightline.records.manifest import read_manifest
from sightline.records.rows import Answer
from sightline.records.store import append_rows, read_rows
from tests.evals.shapes import SHAPES_ENTRY, ShapeBenchmark
from tests.models.tiny import save_tiny_llava

CONFIG = EvalConfig(benchmarks=("shapes", "shapes-ask"), limit=5, resamples=200)
RUNTIME = EvalRuntime(batch_size=4, device="cpu")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONFIG.benchmarks:
        monkeypatch.setitem(BENCHMARKS, name, SHAPES_ENTRY)


@pytest.fixture(scope="session")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CONFIG.benchmarks:
            patch.setitem(BENCHMARKS, name, SHAPES_ENTRY)
        return evaluate(model, tmp_path_factory.mktemp("whole") / "eval", CONFIG, runtime=RUNTIME)


def texts(directory: Path, name: str = "shapes") -> dict[str, str]:
    return {answer.sample_id: answer.text for answer in read_rows(directory / name / "answers.jsonl", Answer)}


def test_every_sample_is_answered_scored_and_estimated(whole: Path) -> None:
    found = read_evaluation(whole, CONFIG.benchmarks)
    assert list(found) == ["shapes", "shapes-ask"]
    assert [len(result.answers) for result in found.values()] == [5, 10]
    for result in found.values():
        assert (
            [a.sample_id for a in result.answers]
            == [s.id for s in result.samples]
            == [s.sample_id for s in result.scores]
        )
        assert all((result.folder / image).is_file() for sample in result.samples for image in sample.images)
        assert all(
            estimate.n == len(result.answers) for name, estimate in result.estimates.items() if name in ("tokens", "f1")
        )
    assert found["shapes"].estimates["tokens"].value == pytest.approx(
        sum(answer.tokens or 0 for answer in found["shapes"].answers) / 5
    )
    manifest = read_manifest(whole)
    assert manifest.complete
    assert manifest.counts == {"shapes": 5, "shapes-ask": 10}


def test_a_batch_size_changes_no_answer(whole: Path, model: Path, tmp_path: Path) -> None:
    other = evaluate(model, tmp_path / "eval", CONFIG, runtime=EvalRuntime(batch_size=1, device="cpu"))
    assert texts(other) == texts(whole)
    assert texts(other, "shapes-ask") == texts(whole, "shapes-ask")


def test_killed_and_started_again_gives_the_same_and_answers_nothing_twice(
    whole: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[str] = []
    answer = run._answer

    def dying(benchmark, batch, opened):  # type: ignore[no-untyped-def]
        if len(answered) >= 8:
            raise KeyboardInterrupt
        answered.extend(sample.id for sample in batch)
        return answer(benchmark, batch, opened)

    monkeypatch.setattr(run, "_answer", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tmp_path / "eval", CONFIG, runtime=RUNTIME)
    assert not read_manifest(tmp_path / "eval").complete
    torn = tmp_path / "eval" / "shapes-ask" / "answers.jsonl"
    with torn.open("ab") as stream:
        stream.write(b'{"sample_id": "shapes-ask-003')
    answered.clear()

    def counting(benchmark, batch, opened):  # type: ignore[no-untyped-def]
        answered.extend(sample.id for sample in batch)
        return answer(benchmark, batch, opened)

    monkeypatch.setattr(run, "_answer", counting)
    evaluate(model, tmp_path / "eval", CONFIG, runtime=RUNTIME)
    assert len(answered) == 15 - 9  # batches of 4, 1 and 4 were there
    for name in CONFIG.benchmarks:
        for file in ("answers.jsonl", "scores.jsonl", "estimates.json"):
            assert (tmp_path / "eval" / name / file).read_bytes() == (whole / name / file).read_bytes()


def test_a_finished_evaluation_opens_no_model(whole: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (whole / "manifest.json").read_bytes()
    monkeypatch.setattr(run, "answer_samples", None)
    assert evaluate(model, whole, CONFIG, runtime=EvalRuntime(batch_size=2)) == whole
    assert (whole / "manifest.json").read_bytes() == before


def test_another_configuration_is_refused(whole: Path, model: Path) -> None:
    with pytest.raises(InputError, match="limit there: 5, here: 6"):
        evaluate(model, whole, CONFIG.model_copy(update={"limit": 6}), runtime=RUNTIME)


def test_other_samples_under_the_same_name_are_refused(model: Path, tmp_path: Path) -> None:
    benchmark = ShapeBenchmark("shapes", tmp_path / "data", 3)
    run._write_samples(benchmark, list(benchmark.samples()), tmp_path / "shapes")
    with pytest.raises(InputError, match=r"samples\.jsonl holds other samples"):
        run._write_samples(benchmark, list(benchmark.samples())[:2], tmp_path / "shapes")


def answered(tmp_path: Path) -> ShapeBenchmark:
    """A benchmark with one hand-made answer a picture, in `tmp_path`."""
    benchmark = ShapeBenchmark("shapes", tmp_path / "data", 4)
    samples = list(benchmark.samples())
    run._write_samples(benchmark, samples, tmp_path / "shapes")
    rows = []
    for number, sample in enumerate(samples):
        (color, shape), (_, other) = sample.truth["things"]
        absent = next(name for name in ("circle", "square", "triangle") if name not in (shape, other))
        text = f"A {color} {shape}" + (f" and a red {absent}." if number == 0 else ".")
        rows.append(Answer(sample_id=sample.id, cluster=sample.cluster, text=text, tokens=7, finished=number != 1))
    append_rows(tmp_path / "shapes" / "answers.jsonl", rows)
    return benchmark


def test_scores_by_hand(tmp_path: Path) -> None:
    """Four answers: one names an absent shape, each names one of two present shapes, one is cut off."""
    estimates = score_directory(answered(tmp_path), tmp_path, resamples=200)
    assert {name: estimate.value for name, estimate in estimates.items()} == {
        "hallucinating": 0.25,
        "recall": 0.5,
        "tokens": 7.0,
        "unfinished": 0.25,
        "words": 4.0,
        "refused": 0.0,
        "repetition": 0.0,
        "yes_ratio": None,
        "touched": 0.0,
    }
    result = read_result(tmp_path, "shapes")
    [[start, end]] = result.scores[0].details["hallucinated"]
    assert result.answers[0].text[start:end].startswith("red ")
    assert dict(result.estimates) == estimates


def test_scoring_again_changes_no_byte(tmp_path: Path) -> None:
    benchmark = answered(tmp_path)
    files = [tmp_path / "shapes" / name for name in ("scores.jsonl", "metrics.json", "estimates.json")]
    score_directory(benchmark, tmp_path, resamples=200, seed=3)
    first = [file.read_bytes() for file in files]
    score_directory(benchmark, tmp_path, resamples=200, seed=3)
    assert [file.read_bytes() for file in files] == first


def test_missing_and_foreign_answers_are_refused(tmp_path: Path) -> None:
    benchmark = answered(tmp_path)
    path = tmp_path / "shapes" / "answers.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(InputError, match="1 samples have no answer"):
        score_directory(benchmark, tmp_path)
    path.write_text("\n".join([*rows, json.dumps({**json.loads(rows[0]), "sample_id": "stranger"})]) + "\n")
    with pytest.raises(InputError, match="'stranger' is not in samples"):
        score_directory(benchmark, tmp_path)


def test_unfinished_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished benchmark"):
        read_evaluation(tmp_path)
    score_directory(answered(tmp_path), tmp_path, resamples=200)
    with pytest.raises(InputError, match=r"no finished benchmark 'shape' \(there: shapes\)"):
        read_result(tmp_path, "shape")
