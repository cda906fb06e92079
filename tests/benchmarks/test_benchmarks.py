"""The benchmarks at their smallest: they run, they print what they promise, and losses equal TRL's. Never a time."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL comes with the extra [bench]")


def run(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON object on the last line of the script's output."""
    command = [sys.executable, str(FOLDER / script), "--json", "--tiny", "--threads", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@needs_trl
@pytest.mark.parametrize("model", ["llava", "qwen2_5_vl", "lab"])
def test_losses_equal_those_of_trl_at_every_step(model: str) -> None:
    # The rate is high enough for the last losses to lie far from log 2, where any two trainers agree.
    result = run("dpo_step.py", "--model", model, "--steps", "3", "--lr", "2e-3", "--full")
    assert result["max_loss_difference"] <= 1e-4
    assert len(result["losses"]) == len(result["trl_losses"]) == 9
    assert result["losses"][0] == pytest.approx(0.693147, abs=1e-5)
    assert result["losses"][-1] < 0.67
    assert {"speedup_1_epoch", "speedup_3_epochs", "peak_memory_ratio", "versions"} <= result.keys()
    assert result["trl_3_epochs"] == "measured"
    assert "trl" in result["versions"]


@pytest.mark.slow
@needs_trl
def test_three_epochs_of_trl_are_extrapolated_and_say_so() -> None:
    result = run("dpo_step.py", "--steps", "1", "--no-trl-gradient-checkpointing", "--dtype", "bfloat16")
    assert result["trl_3_epochs"] == "extrapolated"
    assert result["max_loss_difference"] < 0.05
    assert result["settings"]["trl_gradient_checkpointing"] is False


@pytest.mark.slow
def test_hybrid_models_give_the_same_log_probs_packed() -> None:
    result = run("hybrid.py", "--repeat", "1")
    sides = [value for name, value in result.items() if "answers" in name]
    assert len(sides) == 4
    assert all(side["max_difference"] < 1e-4 and side["step"] > 0 and side["tokens"] > 1 for side in sides)


@pytest.mark.slow
def test_bdhs_hides_the_same_tokens_on_both_sides() -> None:
    result = run("bdhs.py")
    assert result["speedup"] > 0
    same, of = result["same_greedy_text"]
    assert same == of > 0
    assert result["scaled"]


@pytest.mark.slow
def test_questions_on_a_picture_get_the_same_answers_together_and_alone() -> None:
    result = run("eval_sharing.py")
    assert result["speedup"] > 0
    same, of = result["same_text"]
    assert same == of == 16  # the third picture has two kinds of object, so four questions


@pytest.mark.slow
def test_floor() -> None:
    result = run("floor.py", "--steps", "1")
    assert result["share_of_matmul_rate"] > 0
    assert result["gflop_per_step"] > 0


def test_the_check_finds_what_is_planted() -> None:
    assert run("check.py")["removable"] == 4


@pytest.mark.slow
def test_builders_are_measured() -> None:
    (row,) = run("builders.py", "--samples", "12", "--only", "altered")["builders"]
    assert row["pairs"] >= 10 and row["pairs_per_minute"] > 0
    assert row["rejected_wrong"] == 1.0 and 0.5 < row["chosen_clean"] <= 1  # the references are a curated set
    assert row["rejected_hallucinated"] < 1 and row["length_ratio"] == pytest.approx(1, abs=0.1)
    assert 0 <= row["give_away"]["auc"] <= 1 and row["give_away"]["n"] == row["pairs"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_gpu_benchmark_says_that_it_skips() -> None:
    command = [sys.executable, str(FOLDER / "gpu_step.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"skipped": "no CUDA device"}


def check_stages(result: dict[str, Any]) -> None:
    """Every stage has its numbers; a comparison has them where TRL is installed, and a line where it is not."""
    trl = importlib.util.find_spec("trl") is not None
    for stage in ("dpo_llava_next", "dpo_qwen2_5_vl"):
        assert result[stage]["sightline_pairs_per_second"] > 0
        assert result[stage]["sightline_losses"][0] == pytest.approx(0.693147, abs=1e-4)
        if trl:
            assert result[stage]["max_loss_difference"] <= 1e-4
            assert result[stage]["compared_steps"] == 2
        else:
            assert "not installed" in result[stage]["trl"]
    assert result["bdhs"]["pairs_per_second"] > 0
    nf4 = result["dpo_nf4"]
    if importlib.util.find_spec("bitsandbytes") is None:
        assert "not installed" in nf4["skipped"]
    else:
        assert nf4["weights_gib"] < result["dpo_llava_next"]["weights_gib"]
        assert len(nf4["sightline_losses"]) == 2


def test_every_stage_of_the_gpu_benchmark_runs_on_tiny_models() -> None:
    result = run("gpu_step.py", "--steps", "2", "--batch", "2", "--dtype", "float32")
    check_stages(result)


def test_the_gpu_benchmark_ends_when_its_time_is_over() -> None:
    result = run("gpu_step.py", "--steps", "4", "--batch", "1", "--minutes", "0", "--only", "dpo_llava_next")
    assert "are left" in result["dpo_llava_next"]["skipped"]
    assert "bdhs" not in result


@pytest.mark.gpu
def test_on_a_gpu_losses_equal_those_of_trl() -> None:
    check_stages(run("gpu_step.py", "--steps", "2", "--batch", "2", "--dtype", "float32"))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_operations_are_counted(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    flops = importlib.import_module("flops")
    layer, rows = torch.nn.Linear(10, 20), torch.randn(3, 10)
    query, key = torch.randn(1, 4, 5, 16), torch.randn(1, 4, 7, 16)
    mask = torch.ones(5, 7, dtype=torch.bool)
    with mode(), flops.Flops() as counted:
        layer(rows)
        assert counted.total == 2 * 3 * 10 * 20
        torch.nn.functional.scaled_dot_product_attention(query, key, key, attn_mask=mask)
        assert counted.total == 2 * 3 * 10 * 20 + 2 * 2 * 4 * 5 * 7 * 16
