"""vLLM itself, on the lab's exported model: answers, adapters, online training, evaluation, and a merged export.

Slow, and skipped without the environment of `make setup-vllm`.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.samples import read_samples
from sightline.lab import BASE, CONFIGS
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Generation, Sampling, make_prefix
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records.manifest import read_manifest
from sightline.train.log import read_log
from sightline.train.rollout_backends import ServerConfig, make_backend
from tests.apps.serving import serving_model
from tests.test_readme import ROOT
from tests.vllm.server import (
    ADAPTERS,
    READY,
    SMALL,
    WAIT,
    RunningServer,
    ends_with_parent,
    environment,
    running_vllm,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not READY.exists(), reason="vLLM is not set up; make setup-vllm"),
    pytest.mark.skipif(not (BASE / "model.safetensors").exists(), reason="there are no base weights yet"),
]
NAME = "lab"
GREEDY = Sampling(max_new_tokens=64)
STEPS, BATCH, SCENES = 3, 8, 16


def run(*words: object) -> str:
    """The output of a command that succeeds."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's model as `model`, exported in float32 and so under published names, and scenes as `samples`."""
    root = tmp_path_factory.mktemp("vllm")
    run("export", "model", BASE, "--out", root / "model", "--set", "weights=float32")
    run("lab", "scenes", "--split", "preference", "--count", STEPS * BATCH, "--out", root / "samples")
    return root


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[RunningServer]:
    with running_vllm(place / "model", NAME, place / "vllm.log", ADAPTERS) as running:
        yield running


def policy(model: Path, seed: int) -> VLM:
    """The model with an adapter that changes most of its answers and leaves them sentences."""
    vlm = add_lora(load_vlm(model), LoraSettings(8, 16.0), seed=1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return vlm


def scenes(place: Path) -> list[GenerateRequest]:
    folder = place / "samples"
    return [GenerateRequest(make_prefix(sample, folder)) for sample in read_samples(folder)][:SCENES]


def plain(generations: Sequence[object]) -> list[tuple[str, int, bool]]:
    """Texts, numbers of tokens, and whether they ended."""
    found = [generation for generation in generations if isinstance(generation, Generation)]
    assert len(found) == len(generations), "no call failed"
    return [(generation.text, generation.tokens, generation.finished) for generation in found]


def test_a_policy_answers_on_vllm_as_in_this_process_and_is_forgotten(
    place: Path, server: RunningServer, tmp_path: Path
) -> None:
    """Greedy texts, with two adapters one after the other; neither is the base's."""
    requests = scenes(place)
    base = plain(generate(load_vlm(place / "model"), requests, GREEDY, batch_size=8))
    answers = [base]
    for step in range(2):
        vlm = policy(place / "model", step)
        backend = make_backend(ServerConfig(name="server", base_url=server.url), vlm, tmp_path, autocast=False)
        backend.refresh(step)
        assert len(server.models()) == 2
        answers.append(plain(backend.sample(requests, GREEDY)))
        assert answers[-1] == plain(generate(vlm, requests, GREEDY, batch_size=8))
    backend.close()
    assert server.models() == [NAME] and not (tmp_path / "rollouts").exists()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        changed = sum(left != right for left, right in zip(answers[one], answers[other], strict=True))
        assert changed > SCENES / 4


def test_online_training_hands_over_each_policy_and_leaves_nothing(
    place: Path, server: RunningServer, tmp_path: Path
) -> None:
    before = [server.statuses(f"{act}_lora_adapter").count(200) for act in ("load", "unload")]
    out = tmp_path / "out"
    settings = (f"batch_size={BATCH}", "lora.rank=8", "lora.alpha=16", "autocast=false", "device=cpu")
    engine = ("source.engine.name=server", f"source.engine.base_url={server.url}")
    sets = [word for setting in (*settings, *engine) for word in ("--set", setting)]
    words = ("--samples", place / "samples", "--out", out, "--config", CONFIGS / "online.yaml", *sets)
    run("train", "--model", place / "model", *words)
    rows = list(read_log(out / "log.jsonl"))
    assert read_manifest(out).complete and len(rows) == STEPS and all(row.pairs > 0 for row in rows)
    assert rows[0].loss == pytest.approx(math.log(2), abs=1e-5), "the policy is its reference before the first step"
    assert all(row.numbers["generated_tokens"] > 0 for row in rows)
    after = [server.statuses(f"{act}_lora_adapter").count(200) for act in ("load", "unload")]
    assert [late - early for early, late in zip(before, after, strict=True)] == [STEPS, STEPS]
    assert server.models() == [NAME] and not (out / "rollouts").exists()


def answers(out: Path) -> str:
    return "".join((out / bench / "answers.jsonl").read_text() for bench in ("lab-vqa", "lab-chair"))


def evaluate(place: Path, out: Path, *model: object) -> str:
    """The answers of an evaluation on few scenes."""
    run("eval", "--bench", "lab-vqa,lab-chair", "--limit", 6, "--data", place / "data", "--out", out, *model)
    return answers(out)


def own_answers(place: Path, out: Path, model: Path, *more: object) -> str:
    """The answers of the same evaluation in this process."""
    return evaluate(place, out, "--model", model, "--device", "cpu", *more)


def test_an_evaluation_by_vllm_has_the_answers_of_the_model(place: Path, server: RunningServer, tmp_path: Path) -> None:
    """The base, and with an adapter that the server loads for the time of the run."""
    adapter = tmp_path / "adapter"
    save_adapter(policy(place / "model", 0), adapter)
    base = evaluate(place, tmp_path / "base", "--endpoint", server.url)
    aligned = evaluate(place, tmp_path / "aligned", "--endpoint", server.url, "--endpoint-adapter", adapter)
    assert base == own_answers(place, tmp_path / "own-base", place / "model")
    assert aligned == own_answers(place, tmp_path / "own-aligned", place / "model", "--adapter", adapter)
    assert base != aligned and server.models() == [NAME]
    for name in ("base", "aligned"):
        manifest = read_manifest(tmp_path / name)
        assert manifest.complete and manifest.numbers["server_failures"] == 0 < manifest.numbers["server_requests"]


@pytest.fixture
def merged(place: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `sightline serve` on a merged export, with vLLM behind it."""
    save_adapter(policy(place / "model", 0), tmp_path / "adapter")
    export = ("--adapter", tmp_path / "adapter", "--out", tmp_path / "merged", "--set", "weights=float32")
    run("export", "model", BASE, *export)
    words = [str(tmp_path / "merged"), "--engine", "vllm", "--engine-args", " ".join(SMALL)]
    words += ["--set", "dtype=float32", "--set", f"wait={WAIT:g}"]
    own = environment() | {"PYTHONPATH": str(ROOT)}
    with serving_model(tmp_path / "serve.log", *words, before=ends_with_parent(), **own) as address:
        yield address


def test_a_merged_export_opens_in_vllm_and_answers_as_model_and_adapter(
    place: Path, merged: str, tmp_path: Path
) -> None:
    found = evaluate(place, tmp_path / "found", "--endpoint", merged)
    assert found == own_answers(place, tmp_path / "own", BASE, "--adapter", tmp_path / "adapter")
    assert found == own_answers(place, tmp_path / "whole", tmp_path / "merged")
    assert found != own_answers(place, tmp_path / "base", BASE)
