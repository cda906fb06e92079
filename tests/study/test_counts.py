"""What a study would do, counted and priced before it begins; equal measure for its arms, or a sentence."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sightline.builders.registry import BUILDERS, BuilderEntry, get_builder
from sightline.config import load_config
from sightline.data.formats.layout import LayoutConfig
from sightline.data.formats.registry import LAYOUTS
from sightline.errors import InputError
from sightline.evals.registry import BENCHMARKS
from sightline.evals.run import EvalConfig
from sightline.study.config import StudyConfig
from sightline.study.estimate import (
    ANSWERS,
    count_answers,
    count_examples,
    count_steps,
    estimate,
    refuse_unequal,
    workload,
)
from sightline.study.execute import max_rows
from sightline.study.ledger import LEDGER, Ledger
from sightline.study.plan import StudyPlan, plan_study
from sightline.study.resume import ledger_entry
from sightline.study.runner import job_contexts
from sightline.train.config import TrainConfig
from tests.study.test_study_plan import STUDY


def planned(**changes: Any) -> StudyPlan:
    return plan_study(StudyConfig.model_validate({**STUDY, **changes}))


def loads(plan: StudyPlan) -> dict[str, int | None]:
    return {f"{piece.kind} {piece.label}": workload(plan, piece) for piece in plan.jobs.values()}


def test_counts_of_every_piece() -> None:
    """8 scenes, 8 pairs, 2 steps of 8 pairs, and at most 3 questions of lab-VQA on each of 3 scenes."""
    plan = planned(seeds=[0], arms={"dpo": {"pairs": "corrupted"}})
    expected = {"eval base": 9, "samples scenes": 8, "pairs corrupted 0": 8, "train dpo 0": 16, "eval dpo 0": 9}
    assert loads(plan) == expected


def test_steps_follow_epochs_or_are_said() -> None:
    """3 epochs of 8 pairs in steps of 2 x 5: 24 examples, 3 steps."""
    train = {"set": {**STUDY["train"]["set"], "max_steps": None, "epochs": 3, "batch_size": 2, "accumulation": 5}}
    plan = planned(train=train)
    piece = plan.jobs[plan.runs[0].train]
    assert (count_examples(plan, piece), count_steps(plan, piece)) == (24, 3)


def test_defaults_are_those_of_training() -> None:
    config = TrainConfig.model_validate({"loss": {"name": "sft"}, "optim": {"lr": 1.0}, "max_steps": 3})
    plan = planned(train={"set": {"loss": {"name": "sft"}, "optim": {"lr": 1.0}, "max_steps": 3}})
    assert count_examples(plan, plan.jobs[plan.runs[0].train]) == 3 * config.batch_size * config.accumulation


def test_what_a_builder_makes_of_a_sample() -> None:
    pairs = {
        "twins": {"builder": "altered", "samples": "scenes", "set": {"twins": 3}},
        "ranked": {"builder": "ranked", "samples": "scenes"},
        "some": {"take": {"of": "twins", "count": 5}},
        "both": {"average": ["twins", "some"]},
    }
    arms = {name: {"pairs": name} for name in pairs}
    plan = planned(pairs=pairs, arms=arms, seeds=[0])
    found = [max_rows(plan, plan.jobs[run.train].inputs["pairs"]) for run in plan.runs]
    assert found == [24, None, 5, 24]


def test_a_builders_entry_alone_says_how_many_pairs_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new builder is one line of the registry; a config key that is named there exists, with the default 1."""
    monkeypatch.setitem(BUILDERS, "new", BuilderEntry("nowhere:NEW", "Three each.", (), 3))
    monkeypatch.setitem(BUILDERS, "open", BuilderEntry("nowhere:OPEN", "Nobody knows.", ()))
    for name, rows in (("new", 24), ("open", None)):
        plan = planned(pairs={"set": {"builder": name, "samples": "scenes"}}, arms={"a": {"pairs": "set"}}, seeds=[0])
        assert max_rows(plan, plan.jobs[plan.runs[0].train].inputs["pairs"]) == rows
    monkeypatch.undo()
    for name, entry in BUILDERS.items():
        if isinstance(entry.most, str):
            assert get_builder(name).config.model_fields[entry.most].default == 1


EPOCHS = {"set": {**STUDY["train"]["set"], "max_steps": None, "epochs": 2}}


def test_an_arm_of_unknown_size_is_not_counted_as_nothing(tmp_path: Path) -> None:
    """One arm has 8 pairs in 2 epochs, the other as many as a judge's ranking leaves."""
    pairs = {**STUDY["pairs"], "ranked": {"builder": "ranked", "samples": "scenes"}}
    arms = {"dpo": {"pairs": "corrupted"}, "free": {"pairs": "ranked"}}
    lines = list(estimate(planned(pairs=pairs, arms=arms, seeds=[0], train=EPOCHS), tmp_path).lines())
    assert "  train: 2, of which 2 to do (at least 16 examples, with 1 of unknown size), time not known yet" in lines
    assert "  in training: at least 2 steps" in lines
    assert "  unknown examples and steps: free 0; their rows are counted once they exist" in lines
    alone = list(estimate(planned(pairs=pairs, arms={"free": arms["free"]}, seeds=[0], train=EPOCHS), tmp_path).lines())
    assert "  train: 1, of which 1 to do (unknown examples), time not known yet" in alone
    assert not any("0 examples" in line or "0 steps" in line for line in alone)


def test_known_times_beside_unknown_ones_are_lower_bounds(tmp_path: Path) -> None:
    pairs = {**STUDY["pairs"], "ranked": {"builder": "ranked", "samples": "scenes"}}
    arms = {"dpo": {"pairs": "corrupted"}, "free": {"pairs": "ranked"}}
    rates = {"device": "GPU", "example": {"other": 30.0}}
    lines = list(estimate(planned(pairs=pairs, arms=arms, seeds=[0], train=EPOCHS, rates=rates), tmp_path).lines())
    assert any("at least 8.0 min and 1 of unknown time" in line for line in lines), lines
    assert any(line.startswith("  in all: at least 8.0 min of one GPU") for line in lines), lines


@pytest.mark.parametrize("value", [{}, [1], "many", True, 0, 2.5, float("inf")])
def test_a_number_that_is_none_is_refused_with_the_piece(value: Any, tmp_path: Path) -> None:
    for key in ("max_steps", "batch_size"):
        plan = planned(train={"set": {**STUDY["train"]["set"], key: value}})
        with pytest.raises(InputError, match=rf"study: train dpo 0: {key} = .* must be a whole number from 1 on"):
            estimate(plan, tmp_path)


def test_which_builders_need_a_model_is_as_they_say() -> None:
    for name, entry in BUILDERS.items():
        assert entry.needs_model == get_builder(name).needs_model


def test_answers_of_benchmarks() -> None:
    assert set(ANSWERS) <= set(BENCHMARKS)
    assert (
        count_answers("pope", None) == 9000 and count_answers("pope", 50) == 900 and count_answers("pope", 9999) == 9000
    )
    assert count_answers("lab-pope-random-counter", 10) == 60 and count_answers("lab-chair", None) == 500
    assert count_answers("hallusionbench", 3) is None


def test_unequal_arms_are_refused_or_told() -> None:
    more = {"samples": {**STUDY["samples"], "few": {"split": "preference", "count": 6}}}
    more["pairs"] = {**STUDY["pairs"], "rare": {"builder": "corrupted", "samples": "few"}}
    arms = {"all": {"pairs": "corrupted"}, "few": {"pairs": "rare"}}
    refused = planned(**more, arms=arms)
    with pytest.raises(InputError, match=r"differ in pairs or prompts: from 6 \(few\) to 8 \(all\)"):
        refuse_unequal(refused)
    allowed = planned(**more, arms=arms, unequal="allowed")
    assert refuse_unequal(allowed) == ["arms differ in pairs or prompts: from 6 (few) to 8 (all)"]
    cut = planned(**more, arms=arms, equal={"pairs": 6})
    assert refuse_unequal(cut) == []
    taken = [cut.jobs[cut.jobs[run.train].inputs["pairs"]] for run in cut.runs]
    assert all(piece.settings == {"take": {"count": 6, "random_seed": None}} for piece in taken)
    longer = {"long": {"pairs": "corrupted", "set": {"max_steps": 3}}, "short": {"pairs": "corrupted"}}
    with pytest.raises(InputError, match=r"taken in all steps: from 16 \(short\) to 24 \(long\)"):
        refuse_unequal(planned(arms=longer))
    serving = {**arms, "few": {"pairs": "rare", "measured": False}}
    assert refuse_unequal(planned(**more, arms=serving)) == []


def test_seconds_are_scaled_by_what_pieces_count(tmp_path: Path) -> None:
    """A training of 16 examples took 8 s, so one of three times as many steps will take 24."""
    small = planned(seeds=[0], arms={"dpo": {"pairs": "corrupted"}})
    ledger = Ledger(tmp_path, write=True)
    key = small.runs[0].train
    ledger.begin(ledger_entry(job_contexts(small, tmp_path)[key]))
    ledger.end(key, "done", seconds=8.0)
    train = {"set": {**STUDY["train"]["set"], "max_steps": 6}}
    forecast = estimate(planned(seeds=[0], arms={"ipo": {"pairs": "corrupted"}}, train=train), tmp_path)
    assert forecast.seconds["train"] == 0.0 and forecast.open["train"] == 1, "it belongs to no plan that is known"
    ledger.begin_study("small", {}, [], _text(small))
    forecast = estimate(planned(seeds=[0], arms={"ipo": {"pairs": "corrupted"}}, train=train), tmp_path)
    assert forecast.seconds["train"] == pytest.approx(24.0) and forecast.loads["train"] == 48
    assert forecast.seconds["eval"] == 0.0 and forecast.open["eval"] == 2
    (tmp_path / LEDGER).write_bytes(b"damaged " * 100)
    assert estimate(small, tmp_path).open["train"] == 1


def _text(plan: StudyPlan) -> str:
    from sightline.study.plan import plan_text

    return plan_text(plan)


def test_stated_rates_price_what_nothing_measured(tmp_path: Path) -> None:
    """8 rows at 1 s, 16 examples at 2 s, 2 evaluations of 9 answers at 0.5 s: 49 s; 16 x (100 + 2 x 30) tokens."""
    rates = {
        "device": "A100",
        "row": {"corrupted": 1.0, "other": 0.0},
        "example": {"offline": 2.0},
        "answer": {"other": 0.5},
        "prefix_tokens": 100,
        "answer_tokens": 30,
    }
    plan = planned(seeds=[0], arms={"dpo": {"pairs": "corrupted"}}, rates=rates)
    forecast = estimate(plan, tmp_path)
    assert forecast.seconds == {"eval": 9.0, "samples": 0.0, "pairs": 8.0, "train": 32.0}
    lines = "\n".join(forecast.lines())
    assert "2,560 tokens forward and backward" in lines and "2 steps" in lines
    assert lines.endswith("in all: about 0.8 min of one A100")


@pytest.mark.parametrize("file", sorted(Path("studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_piece_of_a_shipped_study_has_a_config_that_its_stage_takes(file: Path) -> None:
    plan = plan_study(load_config(StudyConfig, file))
    for job in job_contexts(plan, Path("runs/study")).values():
        settings = job.settings()
        if job.piece.kind == "train":
            TrainConfig.model_validate(settings["config"])
        elif job.piece.kind == "eval":
            for name in EvalConfig.model_validate(settings).benchmarks:
                assert name in BENCHMARKS
        elif "builder" in settings:
            get_builder(settings["builder"]).config.model_validate(settings["config"])
        elif "layout" in settings:
            LayoutConfig.model_validate(settings["config"])
            assert settings["layout"] in LAYOUTS


@pytest.mark.parametrize("file", sorted(Path("studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_say_what_they_do_not_hold_equal(file: Path, tmp_path: Path) -> None:
    plan = plan_study(load_config(StudyConfig, file))
    refuse_unequal(plan)
    lines = list(estimate(plan, tmp_path).lines())
    assert lines[0].endswith(f"{len(plan.jobs)} jobs, each done once")
    assert all(f"{count} to do" in line for line, count in zip(lines[1:], _kinds(plan).values(), strict=False))


def _kinds(plan: StudyPlan) -> Counter[str]:
    return Counter(piece.kind for piece in plan.jobs.values())
