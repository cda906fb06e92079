"""Reward models in the training loop: a step by hand, and from pairs on disk to a judge that ranks them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.preference_dataset import PAIRS
from sightline.losses.objective import Term, make_objective
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.packing import PackRow
from sightline.models.unbatched import unbatched_states
from sightline.models.vlm import VLM
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair
from sightline.records.store import write_rows
from sightline.train.config import OptimizerConfig, TrainConfig
from sightline.train.config.weights import ValidationConfig
from sightline.train.log import read_log
from sightline.train.loop import StepSettings, TrainState, fit, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.reward_model import RewardTask
from sightline.train.run import train
from sightline.train.scoring import make_score_request
from sightline.train.sources import OfflineSource

Make = Callable[..., VLM]


def state_of(vlm: VLM, pairs: list[Pair], lr: float, max_steps: int) -> TrainState[Pair]:
    task = RewardTask(vlm, make_objective([Term("reward")]), lr=None, autocast=False)
    optimizer = make_optimizer(trainable_weights(vlm, task), OptimizerConfig(lr=lr))
    return TrainState(vlm, optimizer, OfflineSource(pairs, pairs_per_step=6, seed=0, max_steps=max_steps), task)


def settings(batch_size: int = 6) -> StepSettings:
    return StepSettings(batch_size, schedule=lambda _: 1.0, clip_norm=1e9, seed=0)


def test_a_step_is_bradley_and_terrys_row_by_row(make_policy: Make, pairs: list[Pair]) -> None:
    """-log sigmoid(w . h+ - w . h-), mean over six pairs: loss, accuracy, and gradients of head and adapter."""
    vlm = make_policy()
    state = state_of(vlm, pairs, lr=1e-12, max_steps=1)
    ((name, head),) = [(n, w) for n, w in state.trainable() if n == "head.weight"]
    torch.manual_seed(3)
    with torch.no_grad():
        head.normal_()
    losses, right = [], 0
    for pair in pairs:
        item = make_score_request(pair)
        prefix = encode_prefix(vlm, item.prefix)
        rows = [encode_answer(vlm, prefix, answer) for answer in item.answers]
        states = [unbatched_states(vlm, [PackRow(prefix, (row.ids[row.start :],))])[1][0] for row in rows]
        margin = (states[0] - states[1]) @ head
        right += bool(margin > 0)
        losses.append(torch.log1p(torch.exp(-margin)))
    torch.stack(losses).mean().backward()
    expected = {n: w.grad.clone() for n, w in state.trainable() if w.grad is not None}
    (record,) = list(fit(state, settings(batch_size=4)))
    assert record.loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert record.accuracy == pytest.approx(right / 6)
    found = {n: w.grad for n, w in state.trainable() if w.grad is not None}
    assert found.keys() == expected.keys() and name in found
    for n, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[n], gradient, rtol=1e-3, atol=1e-3 * scale + 1e-6)


def test_from_pairs_to_a_judge(model_dir: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """It begins with no opinion, at log 2; it ends ranking what it learned, as `sightline judge` says too."""
    data, out = tmp_path / "pairs", tmp_path / "out"
    (data / "images").mkdir(parents=True)
    rows = []
    for pair in pairs:
        picture = Path(pair.images[0])
        (data / "images" / picture.name).write_bytes(picture.read_bytes())
        rows.append(pair.model_copy(update={"images": (f"images/{picture.name}",)}))
    write_rows(data / PAIRS, rows)
    config = TrainConfig.model_validate(
        {
            "loss": {"name": "reward"},
            "optim": {"lr": 0.01, "head_lr": 0.05},
            "lora": {"rank": 4},
            "batch_size": 6,
            "max_steps": 12,
        }
    )
    train(model_dir, data, out, config, seed=0)
    log = list(read_log(out / "log.jsonl"))
    assert log[0].loss == pytest.approx(math.log(2), abs=1e-6) and log[0].accuracy == 0.0
    assert log[-1].accuracy == 1.0 and log[-1].loss < 0.2
    assert read_manifest(out).complete
    with_validation = config.model_copy(update={"max_steps": 2, "validation": ValidationConfig(share=0.3, every=2)})
    train(model_dir, data, tmp_path / "held out", with_validation, seed=0)
    looked = list(read_log(tmp_path / "held out/log.jsonl"))[-1].numbers
    assert looked["validation_accuracy"] in (0.0, 0.5, 1.0) and looked["validation_loss"] > 0
    command = ["judge", "--pairs", str(data), "--set", "judge.name=reward", "--set", f"judge.model={model_dir}"]
    result = CliRunner().invoke(app, [*command, "--set", f"judge.adapter={out / 'adapter'}"])
    assert result.exit_code == 0, result.output
    assert "in 100.0 % of 6 pairs" in result.output
    assert "0 ties, 0 unscored" in result.output
