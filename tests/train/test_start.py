"""Two stages: supervised tuning on samples, then a loss that starts from its adapter, also the reference."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sightline.config import load_config
from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.models.loading import load_vlm
from sightline.records import Pair, Sample, read_manifest
from sightline.train.config import TrainConfig
from sightline.train.log import StepRecord, read_log
from sightline.train.run import train
from sightline.train.scoring import score_pairs
from tests.train.test_run import write_pairs

PLAIN = ("optim.lr=0.01", "lora.rank=4", "batch_size=4", "max_steps=3", "device=cpu", "optim.schedule=constant")
DPO = ("loss.name=dpo", "loss.beta=0.5")


def run(model: Path, out: Path, *overrides: str, pairs: Path | None = None, samples: Path | None = None) -> Path:
    return train(model, pairs, out, load_config(TrainConfig, None, [*PLAIN, *overrides]), 0, samples)


def rows_of(out: Path) -> list[StepRecord]:
    return list(read_log(out / "log.jsonl"))


@pytest.fixture
def samples_dir(pairs: list[Pair], tmp_path: Path) -> Path:
    """The same prompts with the chosen answers as references, nothing rejected."""
    write_pairs(tmp_path / "pairs", pairs)
    names = [f"images/{Path(pair.images[0]).name}" for pair in pairs]
    samples = [
        Sample(id=pair.id, images=(name,), prompt=pair.prompt, reference=pair.chosen)
        for pair, name in zip(pairs, names, strict=True)
    ]
    write_samples(tmp_path / "pairs", samples)
    return tmp_path / "pairs"


def test_samples_serve_supervised_tuning_as_pairs_do(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    one = run(model_dir, tmp_path / "samples", "loss.name=sft", samples=samples_dir)
    other = run(model_dir, tmp_path / "pairs-run", "loss.name=sft", pairs=samples_dir)
    weights, others = (load_file(out / "adapter/adapter_model.safetensors") for out in (one, other))
    assert all(torch.allclose(weight, others[name], atol=1e-5) for name, weight in weights.items())
    assert [row.loss for row in rows_of(one)] == pytest.approx([row.loss for row in rows_of(other)], abs=1e-5)
    assert rows_of(one)[0].rejected_tokens == 1.0, "nothing but the token that ends a turn"
    assert not any("longer" in line for line in read_manifest(one).warnings)


def test_a_loss_that_compares_needs_pairs(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pairs to train on"):
        run(model_dir, tmp_path / "out", *DPO, samples=samples_dir)


def test_a_second_stage_starts_from_the_first_and_is_measured_against_it(
    model_dir: Path, samples_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    first = run(model_dir, tmp_path / "first", "loss.name=sft", samples=samples_dir)
    second = run(model_dir, tmp_path / "second", *DPO, f"start={first / 'adapter'}", "batch_size=6", pairs=samples_dir)
    rows = rows_of(second)
    assert rows[0].loss == pytest.approx(0.6931472, abs=1e-5), "policy and reference are one at the start"
    assert rows[-1].loss < 0.6
    tuned = score_pairs(load_vlm(model_dir, adapter=first / "adapter"), pairs, autocast=False)
    assert rows[-1].chosen_ref_logps == pytest.approx(tuned.chosen.mean().item(), rel=1e-4)
    plain = run(model_dir, tmp_path / "plain", *DPO, "batch_size=6", pairs=samples_dir)
    assert rows[0].chosen_ref_logps != pytest.approx(rows_of(plain)[0].chosen_ref_logps, rel=1e-3)
    assert "start" in read_manifest(second).inputs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.rank=8", "has r = 4 and the config's lora section 8"),
        ("lora.alpha=1", "has lora_alpha = 32 and the config's lora section 1"),
        ("lora.targets=[q_proj]", "differ in .* weights"),
        ("start=/nowhere", "start: /nowhere is not a readable adapter"),
        ("lora=null", "start is an adapter to continue from"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    override: str, message: str, model_dir: Path, samples_dir: Path, tmp_path: Path
) -> None:
    first = run(model_dir, tmp_path / "first", "loss.name=sft", "max_steps=1", samples=samples_dir)
    with pytest.raises(InputError, match=message):
        run(model_dir, tmp_path / "out", *DPO, f"start={first / 'adapter'}", override, pairs=samples_dir)
    assert not (tmp_path / "out").exists()
