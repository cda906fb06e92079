"""The stage by rewards end to end: from lab samples to an adapter, its log and manifest, killed and resumed."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sightline.builders.build import BuildPlan, build_dataset
from sightline.builders.registry import get_builder
from sightline.config import load_config
from sightline.errors import InputError
from sightline.judges.judge import OracleJudgeConfig, Verdict
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput, Prefix
from sightline.records.manifest import read_manifest
from sightline.train import run
from sightline.train.checkpoint import save_checkpoint
from sightline.train.config import TrainConfig
from sightline.train.log import read_log
from sightline.train.rl.rollouts import RewardScale, measure_scale, read_answers
from tests.train.rl.rolling import PPO, RLOO

CONFIGS = Path(run.__file__).parents[1] / "lab/configs"

#: The tiny model talks nonsense, which is all one to the truth; words it has.
WORDS = {"judge": {"name": "length-controlled", "judge": {"name": "oracle"}, "per_word": 0.1}, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of the lab with their truth."""
    folder = tmp_path_factory.mktemp("scenes") / "samples"
    write_scenes(ScenesConfig(), "validation", 6, folder)
    return folder


def config_of(rl: dict[str, Any], **further: Any) -> TrainConfig:
    settings = {"optim": {"lr": 1e-3}, "batch_size": 2, "max_steps": 4, "checkpoint_every": 1, "pass_tokens": 400}
    return TrainConfig.model_validate({**settings, "lora": {"rank": 2}, "rl": rl, **further})


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def test_a_run_by_rewards_from_samples_to_manifest(model_dir: Path, scenes: Path, tmp_path: Path) -> None:
    rl = PPO | WORDS | {"scale": {"by": "policy", "rows": 4}, "kl": {"weight": 0.05, "place": "reward"}}
    run.train(model_dir, scenes, tmp_path, config_of(rl), seed=3)
    manifest = read_manifest(tmp_path)
    assert manifest.complete and manifest.counts["prompts"] == manifest.counts["prompts_trained_on"] == 6
    rows = list(read_log(tmp_path / "log.jsonl"))
    assert len(rows) == manifest.counts["steps"] == 4
    assert manifest.counts["answer_tokens"] == round(rows[0].numbers["answers"] * rows[0].numbers["answer_tokens"])
    assert manifest.numbers["first_reward"] == manifest.numbers["last_reward"] == rows[0].numbers["reward"]
    scale = json.loads((tmp_path / "adapter/reward_scale.json").read_text())
    assert scale["n"] == 8 and scale["mean"] == rows[0].numbers["scale_mean"]
    assert rows[0].numbers["scaled_reward"] == pytest.approx(
        (rows[0].numbers["reward"] - scale["mean"]) / scale["std"], abs=1e-9
    )
    assert json.loads((tmp_path / "adapter/head.json").read_text())["kind"] == "value"
    assert load_file(tmp_path / "adapter/head.safetensors")["weight"].abs().max() > 0


def test_a_killed_stage_goes_on_to_the_same_adapter(
    model_dir: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped inside a rollout, after the third of four steps."""
    rl = PPO | WORDS | {"scale": {"by": "policy", "rows": 4}}
    run.train(model_dir, scenes, tmp_path / "whole", config_of(rl), seed=3)
    kept = save_checkpoint

    def stop(state: Any, directory: Path) -> Path:
        saved = kept(state, directory)
        if state.step == 3:
            raise KeyboardInterrupt
        return saved

    monkeypatch.setattr(run, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run.train(model_dir, scenes, tmp_path / "killed", config_of(rl), seed=3)
    monkeypatch.setattr(run, "save_checkpoint", kept)
    run.train(model_dir, scenes, tmp_path / "killed", config_of(rl), seed=3)
    whole, killed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert whole.keys() == killed.keys() and all(torch.equal(whole[name], killed[name]) for name in whole)
    scales = [(tmp_path / name / "adapter/reward_scale.json").read_text() for name in ("whole", "killed")]
    assert scales[0] == scales[1]


class Fixed:
    """Known scores, in turn."""

    identity = "fixed"

    def __init__(self, *scores: float | None) -> None:
        self._scores = scores

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return [Verdict(score, note="silence") for score, _ in zip(self._scores, inputs, strict=True)]


def test_the_scale_is_mean_and_deviation_of_what_was_scored() -> None:
    """1, 3 and 8 have mean 4 and deviation sqrt((9 + 1 + 16) / 3); the unscored one is left out."""
    inputs = [JudgeInput(Prefix((), "Describe."), "A cup.")] * 4
    scale = measure_scale(Fixed(1.0, None, 3.0, 8.0), inputs)
    assert (scale.mean, scale.n, scale.unscored) == (4.0, 3, 1)
    assert scale.std == pytest.approx((26 / 3) ** 0.5) and scale(4.0) == 0.0
    assert RewardScale(mean=2.0, std=0.5)(3.0) == 2.0
    with pytest.raises(InputError, match=r"scored 1 of 2 answers \(silence\)"):
        measure_scale(Fixed(1.0, None), inputs[:2])
    with pytest.raises(InputError, match="without two different scores"):
        measure_scale(Fixed(1.0, 1.0), inputs[:2])


def test_both_answers_of_pairs_give_a_scale_and_the_truth_goes_with_them(scenes: Path, tmp_path: Path) -> None:
    """Corrupted pairs of the lab, scored by its truth: two answers a pair, the rejected ones lower."""
    builder = get_builder("corrupted")
    config = load_config(builder.config, None, ["writer.name=oracle"])
    build_dataset(BuildPlan(builder, config), None, scenes, tmp_path / "pairs")
    judge = OracleJudgeConfig(name="oracle").open(RunContext(tmp_path, tmp_path, 0))
    inputs = list(read_answers(tmp_path / "pairs"))
    scores = [verdict.score for verdict in judge.score(inputs)]
    assert len(scores) == 2 * read_manifest(tmp_path / "pairs").counts["pairs"] and None not in scores
    assert all((good or 0) > (bad or 0) for good, bad in zip(scores[::2], scores[1::2], strict=True))
    scale = measure_scale(judge, inputs)
    assert scale.n == len(scores) and scale.std == pytest.approx(statistics.pstdev(float(s or 0) for s in scores))


def test_references_give_a_scale_of_the_data(model_dir: Path, scenes: Path, tmp_path: Path) -> None:
    rl = RLOO | WORDS | {"scale": {"by": "data", "rows": 5}}
    run.train(model_dir, scenes, tmp_path, config_of(rl, max_steps=1), seed=0)
    assert json.loads((tmp_path / "adapter/reward_scale.json").read_text())["n"] == 5


@pytest.mark.parametrize(
    ("rl", "says"),
    [
        (RLOO | {"answers": 1}, "answers must be 2 or more"),
        (RLOO | {"inner_epochs": 2}, "a rollout is off-policy: set clip"),
        (RLOO | {"scale": {"by": "given", "mean": 0.0}}, "give mean and std"),
        (RLOO | {"scale": {"by": "nothing", "std": 1.0}}, "give mean and std"),
        (RLOO | {"kl": {"weight": -1, "place": "reward"}}, "greater than or equal to 0"),
        (RLOO | {"judge": {"name": "orakel"}}, "oracle"),
    ],
)
def test_a_bad_config_is_refused(rl: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config_of(rl)


def test_loss_and_rl_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give either loss"):
        config_of(RLOO, loss={"name": "sft"})
    with pytest.raises(ValueError, match="validation is for pairs"):
        config_of(RLOO, validation={"share": 0.3, "every": 2})
    with pytest.raises(ValueError, match="give either loss"):
        TrainConfig.model_validate({"optim": {"lr": 1e-3}, "epochs": 1})


def test_prompts_that_do_not_fit_end_the_run_in_one_sentence(model_dir: Path, scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the prompts .* \(6 longer than the model's positions"):
        run.train(model_dir, scenes, tmp_path / "out", config_of(RLOO | {"max_new_tokens": 1000}), seed=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_training_config_is_one(path: Path) -> None:
    """Each opens with its command, by which those of training are known."""
    command = path.read_text().splitlines()[0]
    assert command.startswith("# sightline ")
    if command.startswith("# sightline train"):
        config = load_config(TrainConfig, path, ())
        assert (config.rl is None) == (config.loss is not None)
