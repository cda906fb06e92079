"""What a study plans: every piece once, shared where two arms need the same, known by content and by nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sightline.cli.early import check_jobs
from sightline.config import load_config
from sightline.errors import InputError
from sightline.evals.run import EvalConfig
from sightline.study.config import ArmSpec, StudyConfig
from sightline.study.datasets import merged
from sightline.study.execute import shell_command
from sightline.study.plan import StudyPlan, parse_plan, plan_study, plan_text
from sightline.study.runner import job_contexts

STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "samples": {"scenes": {"split": "preference", "count": 8}},
    "pairs": {
        "corrupted": {"builder": "corrupted", "samples": "scenes", "set": {"writer": {"name": "oracle"}}},
        "fixed": {"builder": "altered", "samples": "scenes", "set": {"writer": {"name": "oracle"}}, "per_seed": False},
    },
    "train": {"set": {"loss": {"name": "dpo", "beta": 0.1}, "optim": {"lr": 1e-4}, "max_steps": 2}},
    "arms": {
        "dpo": {"pairs": "corrupted"},
        "ipo": {"pairs": "corrupted", "set": {"loss": {"name": "ipo", "beta": 0.2}}},
    },
    "evaluate": {"benchmarks": ["lab-vqa"], "limit": 3},
}


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({**STUDY, **changes})


def kinds(plan: StudyPlan) -> dict[str, int]:
    found: dict[str, int] = {}
    for piece in plan.jobs.values():
        found[piece.kind] = found.get(piece.kind, 0) + 1
    return found


def test_arms_share_samples_pairs_and_the_base() -> None:
    """Two arms and two seeds: one set of scenes, two of pairs, four trainings, four evaluations and the base's."""
    plan = plan_study(study())
    assert kinds(plan) == {"eval": 5, "samples": 1, "pairs": 2, "train": 4}
    assert [(run.arm, run.seed) for run in plan.runs] == [("dpo", 0), ("ipo", 0), ("dpo", 1), ("ipo", 1)]
    dpo, ipo = (plan.jobs[run.train] for run in plan.runs[:2])
    assert dpo.inputs["pairs"] == ipo.inputs["pairs"] and dpo.key != ipo.key
    assert ipo.settings["config"]["loss"] == {"name": "ipo", "beta": 0.2}, "a loss is replaced as a whole"
    assert ipo.settings["config"]["optim"] == {"lr": 1e-4}


def test_a_piece_comes_after_what_it_stands_on() -> None:
    plan = plan_study(study())
    order = list(plan.jobs)
    for piece in plan.jobs.values():
        assert all(order.index(before.key) < order.index(piece.key) for before in plan.before(piece))


def test_pairs_without_seeds_are_built_once() -> None:
    assert kinds(plan_study(study(arms={"dpo": {"pairs": "fixed"}})))["pairs"] == 1


def test_two_arms_that_say_the_same_are_one_training() -> None:
    plan = plan_study(study(arms={"one": {"pairs": "corrupted"}, "two": {"pairs": "corrupted"}}))
    assert kinds(plan)["train"] == 2 and plan.runs[0].train == plan.runs[1].train


def test_keys_follow_content_and_not_names() -> None:
    plain = plan_study(study())
    renamed = plan_study(study(samples={"other": STUDY["samples"]["scenes"]}, pairs=_renamed_pairs()))
    assert set(plain.jobs) == set(renamed.jobs)
    longer = plan_study(study(samples={"scenes": {"split": "preference", "count": 9}}))
    assert set(plain.jobs) & set(longer.jobs) == {plain.bases[""]}, "all but the base's evaluation hangs on the scenes"


def _renamed_pairs() -> dict[str, Any]:
    return {name: {**spec, "samples": "other"} for name, spec in STUDY["pairs"].items()}


def test_axes_make_every_combination() -> None:
    axes = {
        "pairs": {"corrupted": {"pairs": "corrupted"}, "fixed": {"pairs": "fixed"}},
        "loss": {"dpo": {}, "ipo": {"set": {"loss": {"name": "ipo", "beta": 0.2}}}},
    }
    config = study(axes=axes, arms={})
    arms = config.all_arms()
    assert list(arms) == ["corrupted+dpo", "corrupted+ipo", "fixed+dpo", "fixed+ipo"]
    assert arms["fixed+ipo"] == ArmSpec(pairs="fixed", set={"loss": {"name": "ipo", "beta": 0.2}})


def test_a_place_is_another_piece(tmp_path: Path) -> None:
    """An arm that names another's adapter stands on it, with the same seed; its key does not hold a path."""
    arms = {
        "reward": {"pairs": "fixed", "measured": False},
        "rl": {"pairs": "corrupted", "set": {"judge": {"name": "reward", "adapter": "${adapter.reward}"}}},
    }
    plan = plan_study(study(arms=arms))
    reward, rl = plan.runs[:2]
    assert reward.eval is None and rl.eval is not None
    assert plan.jobs[rl.train].inputs["adapter.reward"] == reward.train
    assert plan.jobs[rl.train].settings["config"]["judge"]["adapter"] == "${adapter.reward}"


def test_arms_that_stand_on_each_other_are_refused() -> None:
    arms = {
        "one": {"pairs": "corrupted", "set": {"judge": {"adapter": "${adapter.two}"}}},
        "two": {"pairs": "corrupted", "set": {"judge": {"adapter": "${adapter.one}"}}},
    }
    with pytest.raises(InputError, match=r"one and two depend on each other"):
        plan_study(study(arms=arms))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {}}, "needs arms or axes"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"baseline": "kto"}, "baseline 'kto' is not an arm; arms: dpo, ipo"),
        ({"arms": {"dpo": {"pairs": "povid"}}}, "pairs of arm 'dpo': there is no 'povid'; known: corrupted, fixed"),
        ({"arms": {"dpo": {}}}, "arm 'dpo' has neither pairs nor samples"),
        ({"samples": {"scenes": {"split": "preference"}}}, "give exactly one of `split` with `count`, `path`"),
        ({"pairs": {"p": {"builder": "bdhs"}}}, "give exactly one of `builder` with `samples`, `path`"),
        ({"arm": {}}, "arms"),
        ({"model": "owner/name", "models": {"a": {"path": "lab"}}}, "give either model or models"),
        (
            {"samples": {"s": {"match": {"step": "reda", "path": "x"}}}},
            "step: there is no 'reda'; known: read, explain",
        ),
        ({"models": {"a": {}}}, "give exactly one of `path`, `hub` with an optional `revision`"),
        ({"models": {"a": {"path": "lab", "pairs": {"povid": {}}}}}, "models.a.pairs: there is no 'povid'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    with pytest.raises(InputError) as caught:
        load_config(StudyConfig, file)
    assert message in str(caught.value) and str(file) in str(caught.value)


def test_merging_nested_mappings() -> None:
    below = {"a": {"b": 1, "c": 2}, "loss": {"name": "dpo", "beta": 0.1}}
    above = {"a": {"c": 3}, "loss": {"name": "sft"}}
    assert merged(below, above) == {"a": {"b": 1, "c": 3}, "loss": {"name": "sft"}}
    assert below == {"a": {"b": 1, "c": 2}, "loss": {"name": "dpo", "beta": 0.1}}


@pytest.mark.parametrize("file", sorted(Path("studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_planned(file: Path) -> None:
    plan = plan_study(load_config(StudyConfig, file))
    assert plan.runs
    first, *_ = file.read_text().splitlines()
    assert first.startswith(f"# sightline study {file}"), "a study opens with the command that runs it"


def test_pairs_may_be_built_on_pairs_of_the_same_seed() -> None:
    """`twice` stands on `corrupted`, whose chosen answers are its references; a ring is refused."""
    again = {"builder": "altered", "samples": "corrupted", "set": {"writer": {"name": "oracle"}}}
    plan = plan_study(study(pairs={**STUDY["pairs"], "again": again}, arms={"twice": {"pairs": "again"}}))
    for run in plan.runs:
        built = plan.jobs[plan.jobs[run.train].inputs["pairs"]]
        below = plan.jobs[built.inputs["samples"]]
        assert (built.settings["builder"], below.settings["builder"]) == ("altered", "corrupted")
        assert built.seed == below.seed == run.seed
    with pytest.raises(ValueError, match="built from each other"):
        study(
            pairs={"one": {**again, "samples": "two"}, "two": {**again, "samples": "one"}}, arms={"a": {"pairs": "one"}}
        )
    with pytest.raises(ValueError, match="share the name"):
        study(pairs={**STUDY["pairs"], "scenes": again})


def test_a_plan_is_read_back_as_it_was_without_its_files(tmp_path: Path) -> None:
    """The keys of the pieces stay, though the config file that they were made of is gone."""
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(STUDY["train"]["set"]))
    plan = plan_study(study(train={"config": str(file)}, seeds=[3]))
    text = plan_text(plan)
    file.unlink()
    again = parse_plan(text)
    assert again == plan and plan_text(again) == text
    assert [run.train for run in again.runs] == [run.train for run in plan.runs]


def test_arms_of_several_models_share_what_needs_no_model(tmp_path: Path) -> None:
    """Two models, one seed: written pairs once, BDHS pairs and the untrained model's evaluation once for each model."""
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    pairs = {**STUDY["pairs"], "bdhs": {"builder": "bdhs", "samples": "scenes", "set": {"rho": 0.9}}}
    arms = {"written": {"pairs": "corrupted"}, "own": {"pairs": "bdhs"}}
    targets = {"lora": {"targets": ["q_proj"]}}
    models = {
        "small": {"path": str(tmp_path / "small")},
        "large": {"path": str(tmp_path / "large"), "set": targets, "pairs": {"bdhs": {"rho": 0.99}}},
    }
    plan = plan_study(study(models=models, arms=arms, pairs=pairs, seeds=[0]))
    assert kinds(plan) == {"eval": 6, "samples": 1, "pairs": 3, "train": 4}
    assert [run.arm for run in plan.runs] == ["small/written", "small/own", "large/written", "large/own"]
    written, own, other_written, other_own = (plan.jobs[run.train] for run in plan.runs)
    assert written.inputs["pairs"] == other_written.inputs["pairs"] and written.key != other_written.key
    assert own.inputs["pairs"] != other_own.inputs["pairs"]
    assert plan.jobs[other_own.inputs["pairs"]].settings["config"]["rho"] == 0.99
    assert "lora" not in own.settings["config"] and other_own.settings["config"]["lora"] == targets["lora"]
    assert list(plan.bases) == ["small", "large"] and len(set(plan.bases.values())) == 2


def test_one_model_by_name_has_the_keys_of_the_short_form(tmp_path: Path) -> None:
    short, long = study(), study(models={"lab": {"path": "lab"}})
    assert set(plan_study(short).jobs) == set(plan_study(long).jobs)


def test_a_model_that_was_trained_whole_is_measured_as_it_is() -> None:
    arms = {"adapter": {"pairs": "corrupted"}, "whole": {"pairs": "corrupted", "set": {"lora": None}}}
    plan = plan_study(study(arms=arms, seeds=[0]))
    jobs = job_contexts(plan, Path("out"))
    adapter, whole = (jobs[str(run.eval)] for run in plan.runs)
    trained = jobs[plan.runs[1].train].out
    assert (
        adapter.adapter == jobs[plan.runs[0].train].out / "adapter" and adapter.model == jobs[plan.runs[0].train].model
    )
    assert whole.adapter is None and whole.model == trained / "model"
    assert f"--model {trained}/model" in shell_command(whole) and "--adapter" not in shell_command(whole)


def test_keys_stay_as_they_were() -> None:
    """A study that was begun with an earlier version goes on with this one, and its finished work is found."""
    known = ["b1889c13d794", "addcddfb9679", "ee718b46a660", "aef3f9aa2b91", "e032636e1909"]
    assert [key[:12] for key in plan_study(study()).jobs][:5] == known


def test_keys_with_dots_are_sections_and_unknown_ones_are_found_in_the_plan() -> None:
    keys = {**STUDY["train"]["set"]}
    dotted, nested = (
        plan_study(study(train={"set": {**keys, **more}}))
        for more in ({"optim.lr": 2e-4, "lora.rank": 4}, {"optim": {"lr": 2e-4}, "lora": {"rank": 4}})
    )
    assert list(dotted.jobs) == list(nested.jobs)
    check_jobs(dotted.jobs.values())
    with pytest.raises(InputError, match=r"study: train .*: unknown key 'optim.lrr'; did you mean 'optim.lr'"):
        check_jobs(plan_study(study(train={"set": {**keys, "optim.lrr": 1e-4}})).jobs.values())


def test_reasoning_is_stripped_where_the_study_says_so() -> None:
    """A study that leaves the key out keeps its keys, and no setting, so its manifests match too."""
    plain, stripped, explicit = (
        plan_study(study(evaluate={**STUDY["evaluate"], **more}))
        for more in ({}, {"strip_reasoning": True}, {"strip_reasoning": False})
    )
    assert set(explicit.jobs) == set(plain.jobs)
    pairs = [
        (plain.jobs[str(one.eval)], stripped.jobs[str(two.eval)])
        for one, two in zip(plain.runs, stripped.runs, strict=True)
    ]
    assert pairs
    for before, after in pairs:
        assert after.key != before.key and after.settings == before.settings | {"strip_reasoning": True}
        assert EvalConfig(**after.settings).strip_reasoning and not EvalConfig(**before.settings).strip_reasoning
    jobs = job_contexts(stripped, Path("out"))
    assert all("--set strip_reasoning=true" in shell_command(jobs[str(run.eval)]) for run in stripped.runs)
    others = [piece.key for piece in plain.jobs.values() if piece.kind != "eval"]
    assert others == [piece.key for piece in stripped.jobs.values() if piece.kind != "eval"]


def test_curated_samples_stand_on_samples_and_on_the_models_of_their_seed() -> None:
    """For each seed anew; the samples that they are kept of are drawn once."""
    judge = {"name": "reward", "model": "sightline/lab/base", "adapter": "${adapter.model}"}
    kept = {"of": "scenes", "set": {"questions": {"judge": judge, "keep": 0.3}, "answers": None}}
    plan = plan_study(
        study(
            samples={**STUDY["samples"], "kept": {"curate": kept}},
            arms={"model": {"pairs": "fixed", "measured": False}, "sft": {"samples": "kept"}},
        )
    )
    curated = [piece for piece in plan.jobs.values() if "curate" in piece.settings]
    assert [(piece.kind, piece.seed) for piece in curated] == [("samples", 0), ("samples", 1)]
    models = {run.seed: run.train for run in plan.runs if run.arm == "model"}
    for piece in curated:
        assert piece.inputs["adapter.model"] == models[piece.seed] and set(piece.inputs) == {"adapter.model", "samples"}
    assert len({piece.inputs["samples"] for piece in curated}) == 1
    with pytest.raises(ValueError, match=r"samples.kept.curate.of: there is no 'kept'; known: scenes"):
        study(samples={**STUDY["samples"], "kept": {"curate": {**kept, "of": "kept"}}})
