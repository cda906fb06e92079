"""Curating: shares by hand, the best answer of each turn, LLaVA-Instruct's files, resuming, rewriting under review."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.config import load_config
from sightline.data.samples import read_samples, write_samples
from sightline.errors import InputError
from sightline.judges.judge import Verdict
from sightline.lab.oracle import score
from sightline.lab.samples import ScenesConfig, lab_samples
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.recipes.curation import scoring
from sightline.recipes.curation.config import CurateConfig, RewriteConfig
from sightline.recipes.curation.conversations import (
    answer_input,
    group_conversations,
    question_input,
    replace_answers,
    split_samples,
    split_turns,
)
from sightline.recipes.curation.restyling import restyle
from sightline.recipes.curation.run import LLAVA, SCORES, Curation, RankedConversation, curate
from sightline.recipes.curation.scoring import best_candidates, keep_best
from sightline.records import Grade, Sample, Turn, append_rows, read_rows, write_rows

ORACLE: dict[str, Any] = {"judge": {"name": "oracle"}, "keep": 0.3}
NOISE = {"bad_questions": 0.5, "bad_answers": 0.5, "answers": 2}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty scenes, an instruction each, with two candidate answers."""
    folder = tmp_path_factory.mktemp("pool")
    write_samples(folder, lab_samples(ScenesConfig.model_validate({"instructions": NOISE}), "preference", 60, folder))
    return folder


def config_of(**changes: Any) -> CurateConfig:
    return CurateConfig.model_validate({"questions": ORACLE, "answers": ORACLE, **changes})


def chat(name: str, *texts: str, **fields: Any) -> Sample:
    """Questions and answers by turns."""
    turns = [Turn(role="assistant" if place % 2 else "user", text=text) for place, text in enumerate(texts)]
    history = tuple(turns[:-2])
    return Sample(id=name, history=history, prompt=texts[-2], reference=texts[-1], **fields)


# --- pure parts -------------------------------------------------------------------------------------------------------


def test_the_best_share_of_each_type_is_kept() -> None:
    scores = {**{f"d{number}": float(number) for number in range(10)}, "c0": 1.0, "c1": 2.0, "c2": None}
    types = {name: {"d": "detail", "c": "conversation"}[name[0]] for name in scores}
    assert keep_best(scores, types, 0.3, {}) == {"d9", "d8", "d7", "c1"}, "at least one of three"
    assert keep_best(scores, types, 0.3, {"conversation": 1.0}) == {"d9", "d8", "d7", "c0", "c1"}, "unscored never"
    assert keep_best({"b": 1.0, "a": 1.0}, {"a": "", "b": ""}, 0.5, {}) == {"a"}


@given(st.integers(1, 400))
def test_thirty_percent_twice_is_nine(count: int) -> None:
    scores = {str(number): float(number) for number in range(count)}
    first = keep_best(scores, dict.fromkeys(scores, ""), 0.3, {})
    second = keep_best({name: scores[name] for name in first}, dict.fromkeys(first, ""), 0.3, {})
    assert len(first) == max(1, count * 3 // 10) and len(second) == max(1, len(first) * 3 // 10)
    assert min(scores[name] for name in second) == count - len(second)


def test_the_best_answer_of_each_turn_and_their_mean() -> None:
    assert best_candidates([[1.0, 3.0], [2.0, 0.0]]) == (2.5, (1, 0))
    assert best_candidates([[None, -1.0], [0.0, 0.0]]) == (-0.5, (1, 0)), "of equal ones the first"
    assert best_candidates([[1.0], [None]]) == (None, ())


def test_candidates_of_the_same_questions_are_one_conversation() -> None:
    one, two = chat("a", "Q1", "A1", "Q2", "A2"), chat("b", "Q1", "B1", "Q2", "B2")
    other = chat("c", "Q1", "A1")
    found = group_conversations([one, other, two])
    assert [[sample.id for sample in each.candidates] for each in found] == [["a", "b"], ["c"]]
    assert found[0].questions == ["Q1", "Q2"]
    mixed = replace_answers(one, ["B1", "A2"])
    assert mixed == chat("a", "Q1", "B1", "Q2", "A2")
    assert [(s.id, s.prompt, s.reference, len(s.history)) for s in split_samples(mixed)] == [
        ("a-1", "Q1", "B1", 0),
        ("a-2", "Q2", "A2", 2),
    ]


# --- the stage --------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_better_and_of_every_type(pool: Path, tmp_path: Path) -> None:
    manifest = curate(Curation(pool, config_of()), tmp_path / "out")
    kept = list(read_samples(tmp_path / "out"))
    rows = list(read_rows(tmp_path / "out" / SCORES, RankedConversation))
    assert len(rows) == manifest.counts["conversations"] and manifest.counts["samples"] == len(kept)
    assert sum(row.kept for row in rows) == manifest.counts["kept"]
    for kind in ("conversation", "detail", "complex"):
        theirs = [row for row in rows if row.task == kind]
        answered = [row for row in theirs if row.answer is not None]
        worst = min(row.answer or 0.0 for row in answered if row.kept)
        assert all((row.answer or 0.0) <= worst for row in answered if not row.kept)
        first = max(1, len(theirs) * 3 // 10)
        assert sum(row.kept for row in theirs) == max(1, first * 3 // 10) == manifest.counts[f"kept_{kind}"]
    folder = tmp_path / "out"
    for sample in kept:
        (turn,) = split_turns(sample)[-1:]
        assert (score(question_input(sample, folder, turn.question)).score or 0.0) > 0.5
        assert (score(answer_input(sample, folder, turn, turn.answer)).score or 0.0) > 0


def test_llava_rows_come_back_as_the_same_samples(pool: Path, tmp_path: Path) -> None:
    """What was kept is curated again from its LLaVA-Instruct file as it is; nothing is lost by the way."""
    curate(Curation(pool, config_of(turns="last")), tmp_path / "out")
    written = json.loads((tmp_path / "out" / LLAVA).read_text())
    assert written[0]["conversations"][0]["from"] == "human" and written[0]["conversations"][0]["value"].startswith(
        "<image>"
    )
    everything = config_of(questions={"keep": 1.0}, answers=None, turns="last")
    again = Curation(tmp_path / "out" / LLAVA, everything, images=tmp_path / "out")
    curate(again, tmp_path / "again")
    one, other = (list(read_samples(tmp_path / name)) for name in ("out", "again"))
    assert [(s.history, s.prompt, s.reference) for s in one] == [(s.history, s.prompt, s.reference) for s in other]


def test_types_of_llava_files_stand_in_their_names(pool: Path, tmp_path: Path) -> None:
    image = next((pool / "images").iterdir()).name
    row = {
        "id": "1",
        "image": image,
        "conversations": [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}],
    }
    (tmp_path / "files").mkdir()
    for name in ("conversation_58k.json", "detail_23k.json", "complex_reasoning_77k.json"):
        (tmp_path / "files" / name).write_text(json.dumps([row | {"id": name}]))
    config = config_of(questions={"keep": 1.0}, answers=None)
    curate(Curation(tmp_path / "files", config, images=pool / "images"), tmp_path / "out")
    # One picture and one question: candidates of one conversation, of the first file's type.
    assert [sample.task for sample in read_samples(tmp_path / "out")] == ["complex"]


def test_a_random_control_hangs_on_the_seed_alone(pool: Path, tmp_path: Path) -> None:
    control = config_of(questions={"keep": 0.09}, answers=None)
    kept = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        curate(Curation(pool, control, seed=seed), tmp_path / name)
        kept.append([sample.id for sample in read_samples(tmp_path / name)])
    assert kept[0] == kept[1] != kept[2]


def test_stopped_it_goes_on_where_it_was(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(wave=8)
    curate(Curation(pool, config), tmp_path / "whole")
    times = 0

    def stop_after_three(path: Path, rows: Sequence[Any]) -> int:
        nonlocal times
        times += 1
        if times > 3:
            raise KeyboardInterrupt
        return append_rows(path, rows)

    with monkeypatch.context() as patched:
        patched.setattr(scoring, "append_rows", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            curate(Curation(pool, config), tmp_path / "stopped")
    judged = []
    oracle = score

    def counting(one: JudgeInput) -> Verdict:
        judged.append(one)
        return oracle(one)

    monkeypatch.setattr("sightline.lab.oracle.score", counting)
    curate(Curation(pool, config), tmp_path / "stopped")
    for name in ("samples.jsonl", SCORES, LLAVA):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    total = sum(
        len(list(read_rows(tmp_path / f"whole/work/{n}.jsonl", scoring.ScoreRow))) for n in ("questions", "answers")
    )
    assert len(judged) == total - 24


def test_people_may_grade_instead(pool: Path, tmp_path: Path) -> None:
    """Two raters, two criteria: the weighted mean decides, and what nobody graded is never kept."""
    samples = [sample for sample in read_samples(pool) if sample.task == "detail"]
    folder = tmp_path / "details"
    write_samples_with_images(folder, samples, pool)
    names = [one.id for one in group_conversations(samples)]
    best = names[3]
    rows = [
        Grade(sample_id=name, rater=rater, scores={"accuracy": 5.0 if name == best else 2.0, "relevance": 3.0})
        for name in names[1:]
        for rater in ("ann", "bob")
    ]
    rows.append(Grade(sample_id=names[0], rater="ann", scores={"relevance": 9.0}))
    write_rows(tmp_path / "grades.jsonl", rows)
    by_people = {"grades": tmp_path / "grades.jsonl", "criteria": {"accuracy": 2.0, "relevance": 1.0}, "keep": 0.01}
    manifest = curate(Curation(folder, config_of(questions=by_people, answers=None)), tmp_path / "out")
    assert [row.id for row in read_rows(tmp_path / "out" / SCORES, RankedConversation) if row.kept] == [best]
    scores = {row.id: row.question for row in read_rows(tmp_path / "out" / SCORES, RankedConversation)}
    assert scores[best] == pytest.approx((2 * 5 + 3) / 3) and scores[names[0]] is None
    assert manifest.dropped == {"questions without a score": 1}


def write_samples_with_images(folder: Path, samples: list[Sample], source: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for sample in samples:
        for image in sample.images:
            (folder / image).write_bytes((source / image).read_bytes())
    write_samples(folder, samples)


def test_rewrites_take_the_place_only_where_the_review_says_so(pool: Path) -> None:
    """Other names for the same objects pass; a writer who corrupts would be refused by the same reviewer."""
    samples = [sample for sample in read_samples(pool) if sample.task == "detail"][:12]
    tools = RunContext(pool, pool, 0)
    good = restyle(samples, RewriteConfig.model_validate({"writer": {"name": "oracle"}}), tools, 4)
    changed = [a.reference != b.reference for a, b in zip(samples, good.samples, strict=True)]
    assert (
        sum(changed) == good.rewritten > 0 and good.refused == 0 and good.not_written == len(samples) - good.rewritten
    )
    for before, after in zip(samples, good.samples, strict=True):
        turn = split_turns(after)[-1]
        before_score = score(answer_input(before, pool, turn, before.reference or ""))
        assert score(answer_input(after, pool, turn, turn.answer)) == before_score


def test_the_models_own_rewrites_are_reviewed_and_a_poor_one_is_refused(
    pool: Path, model_dir: Path, tmp_path: Path
) -> None:
    """The random tiny model writes nonsense: the lab's truth refuses it, and every answer stays as it was."""
    writer = {"name": "policy", "max_new_tokens": 12, "temperature": 1.0}
    rewrite = {"writer": writer, "reviewer": {"name": "oracle"}}
    manifest = curate(Curation(pool, config_of(rewrite=rewrite), model=model_dir), tmp_path / "out")
    curate(Curation(pool, config_of()), tmp_path / "plain")
    assert manifest.numbers["rewritten"] == 0 and manifest.numbers["refused"] + manifest.numbers["not_written"] > 0
    assert (tmp_path / "out/samples.jsonl").read_bytes() == (tmp_path / "plain/samples.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("questions.keep=0.3", "answers=null", "questions.grades=g", "questions.judge.name=oracle"),
            "either judge or grades",
        ),
        (("questions.keep=0.3", "answers=null", "questions.keep_by_type={detail: 2}"), "keep_by_type.detail = 2"),
        (("questions.keep=1.5", "answers=null"), "keep"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(CurateConfig, None, list(overrides))


def test_nothing_left_is_an_error(samples_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of 6 conversations is left"):
        curate(Curation(samples_dir, config_of()), tmp_path / "out")
