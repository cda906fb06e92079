"""The training stage from directories to a directory: its output, its resumption after kills, its errors."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from sightline.cli import app
from sightline.config import load_config
from sightline.errors import InputError
from sightline.losses.table import LOSSES
from sightline.losses.types import Requirement
from sightline.models.adapters import save_adapter
from sightline.models.loading import load_vlm
from sightline.models.vlm import VLM
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair
from sightline.records.store import append_rows, write_rows
from sightline.train.config import TrainConfig
from sightline.train.log import StepRecord, cut_log, read_log
from sightline.train.run import train
from sightline.train.scoring import score_pairs
from tests.train.test_loop import known, stir

SETTINGS = (
    "loss.name=dpo",
    "loss.beta=0.5",
    "optim.lr=0.01",
    "lora.rank=4",
    "lora.dropout=0.1",
    "batch_size=2",
    "accumulation=2",
    "epochs=3",
    "checkpoint_every=1",
    "device=cpu",
)


def config_with(*overrides: str) -> TrainConfig:
    return load_config(TrainConfig, None, [*SETTINGS, *overrides])


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For processes started from here on: on a busy machine, two threads mostly wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def pairs_dir(pairs: list[Pair], tmp_path: Path) -> Path:
    """A directory of the six pairs, images inside."""
    return write_pairs(tmp_path / "pairs", pairs)


def write_pairs(directory: Path, pairs: Sequence[Pair]) -> Path:
    (directory / "images").mkdir(parents=True)
    rows = []
    for pair in pairs:
        names = [f"images/{Path(image).name}" for image in pair.images]
        for image, name in zip(pair.images, names, strict=True):
            shutil.copyfile(image, directory / name)
        rows.append(pair.model_copy(update={"images": tuple(names)}))
    write_rows(directory / "pairs.jsonl", rows)
    return directory


def parameters_of(name: str) -> list[str]:
    """A middling value of each number that a loss needs."""
    return [f"loss.{parameter.name}={parameter.example}" for parameter in LOSSES[name].parameters]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_trains(
    name: str, model_dir: Path, make_policy: Callable[..., VLM], full_pairs: list[Pair], tmp_path: Path
) -> None:
    """Three epochs at a high rate on six pairs: what the loss wants comes about."""
    settings = [text for text in SETTINGS if not text.startswith("loss.")] + ["lora.dropout=0"]
    if Requirement.REFERENCES in LOSSES[name].needs:
        other = make_policy()
        stir(other)
        save_adapter(other, tmp_path / "other")
        settings.append(f"references=[{tmp_path / 'other'}]")
    config = load_config(TrainConfig, None, [*settings, f"loss.name={name}", *parameters_of(name)])
    train(model_dir, write_pairs(tmp_path / "pairs", full_pairs), tmp_path / "out", config, 0)
    rows = list(read_log(tmp_path / "out" / "log.jsonl"))
    assert rows[-1].loss < rows[0].loss
    if name != "sft":
        assert known(rows[-1].margin) > known(rows[0].margin)
    assert (rows[0].chosen_ref_logps is None) is not bool(
        LOSSES[name].needs & {Requirement.REFERENCE, Requirement.REFERENCES}
    )


def adapter_weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def assert_same_adapter(one: Path, other: Path) -> None:
    weights, others = adapter_weights(one), adapter_weights(other)
    assert weights.keys() == others.keys() and len(weights) > 10
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def test_a_run_leaves_adapter_log_and_manifest(
    model_dir: Path, pairs_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert train(model_dir, pairs_dir, out, config_with("epochs=8", "lora.dropout=0"), 0) == out
    assert sorted(p.name for p in out.iterdir()) == ["adapter", "log.jsonl", "manifest.json", "trained_on.npz"]
    rows = list(read_log(out / "log.jsonl"))
    assert [row.step for row in rows] == list(range(16)) and [row.pairs for row in rows[:2]] == [4, 2]
    assert rows[0].loss == pytest.approx(0.69314718, abs=1e-6)
    assert rows[-1].loss < 0.3 and known(rows[-1].margin) > 0.5 and rows[-1].accuracy == 1.0

    manifest = read_manifest(out)
    assert manifest.complete and manifest.stage == "train" and manifest.config["loss"] == {"name": "dpo", "beta": 0.5}
    vlm = load_vlm(model_dir)
    answers = [f" {text}</s>" for pair in pairs for text in (pair.chosen, pair.rejected)]
    tokens = 8 * sum(len(vlm.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in answers)
    assert manifest.counts == {"pairs": 6, "pairs_trained_on": 6, "steps": 16, "answer_tokens": tokens}
    assert manifest.dropped == {}
    assert manifest.numbers["last_loss"] == rows[-1].loss

    base = score_pairs(vlm, pairs, autocast=False)
    aligned = score_pairs(load_vlm(model_dir, adapter=out / "adapter"), pairs, autocast=False)
    assert ((aligned.chosen - base.chosen) > (aligned.rejected - base.rejected)).all()


def test_the_same_arguments_give_the_same_adapter_and_another_seed_another(
    model_dir: Path, pairs_dir: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(seed + 100)
        train(model_dir, pairs_dir, tmp_path / name, config_with("epochs=1", "optim.lr=1e-9"), seed)
    assert_same_adapter(tmp_path / "a", tmp_path / "b")
    one, other = adapter_weights(tmp_path / "a"), adapter_weights(tmp_path / "c")
    differences = [(one[name] - other[name]).abs().max().item() for name in one if "lora_A" in name]
    assert min(differences) > 0.01, "at this rate only the start can tell them apart"


@pytest.mark.parametrize("precision", [("dtype=bfloat16",), ("autocast=true",), ("dtype=bfloat16", "autocast=true")])
def test_it_trains_in_bfloat16(model_dir: Path, pairs_dir: Path, tmp_path: Path, precision: Sequence[str]) -> None:
    """The adapter is float32 all the same, and policy and reference, rounded alike, start equal."""
    out = train(model_dir, pairs_dir, tmp_path / "out", config_with("epochs=8", "lora.dropout=0", *precision), 0)
    rows = list(read_log(out / "log.jsonl"))
    assert rows[0].loss == pytest.approx(0.69314718, abs=1e-6) and rows[-1].loss < 0.3
    assert {weight.dtype for weight in adapter_weights(out).values()} == {torch.float32}


def test_a_finished_run_is_left_alone(model_dir: Path, pairs_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(model_dir, pairs_dir, out, config_with("max_steps=1", "epochs=null"), 0)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    train(model_dir, pairs_dir, out, config_with("max_steps=1", "epochs=null"), 0)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def killed_and_resumed(arguments: tuple[object, ...], out: Path, kills: int, seed: int) -> int:
    """Train in processes of their own, each SIGKILLed some steps on, at a random moment; then to the end.

    Returns how many of them were killed while a step was still to be done. The time limits are for a starved machine.
    """
    rng = random.Random(seed)
    context = multiprocessing.get_context("forkserver")  # children fork from a process that has imported all this
    context.set_forkserver_preload(["sightline.train.run"])
    log, deaths = out / "log.jsonl", 0
    for attempt in range(kills + 1):
        known = log.stat().st_size if log.exists() else 0
        process = context.Process(target=train, args=arguments)
        process.start()
        try:
            if attempt < kills:
                deadline = time.monotonic() + 300
                while process.is_alive() and time.monotonic() < deadline:
                    if log.exists() and log.stat().st_size > known:
                        break  # it has done a step of its own
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.15))
            else:
                process.join(300)
        finally:
            process.kill()  # SIGKILL
            process.join()
        assert process.exitcode in ((0, -signal.SIGKILL) if attempt < kills else (0,))
        deaths += process.exitcode != 0 and not (out / "adapter").exists()
    return deaths


def check_kills(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, kills: int, seed: int, more: tuple[str, ...] = ()
) -> None:
    config, names = config_with(f"epochs={2 * kills + 2}", *more), ("straight", "killed")
    straight, killed = (tmp_path / name for name in names)
    assert killed_and_resumed((model_dir, pairs_dir, straight, config, 5), straight, 0, seed) == 0
    deaths = killed_and_resumed((model_dir, pairs_dir, killed, config, 5), killed, kills, seed)
    assert deaths >= max(1, kills // 2), "the run ended before it could be killed"
    assert_same_adapter(straight, killed)
    without_times = [
        [row.model_dump(exclude={"seconds"}) for row in read_log(out / "log.jsonl")] for out in (straight, killed)
    ]
    assert without_times[0] == without_times[1], "no step is missing, and none is there twice"
    assert sorted(p.name for p in killed.iterdir()) == ["adapter", "log.jsonl", "manifest.json", "trained_on.npz"]
    assert deaths + 1 <= read_manifest(killed).runs <= kills + 1
    assert read_manifest(killed).counts == read_manifest(straight).counts


@pytest.mark.usefixtures("one_thread")
def test_killed_at_random_and_resumed_it_is_the_same_bit_for_bit(
    model_dir: Path, pairs_dir: Path, tmp_path: Path
) -> None:
    check_kills(model_dir, pairs_dir, tmp_path, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(1, 4))
def test_killed_often(model_dir: Path, pairs_dir: Path, tmp_path: Path, seed: int) -> None:
    check_kills(model_dir, pairs_dir, tmp_path, kills=12, seed=seed)


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    fields: dict[str, object] = dict.fromkeys(StepRecord.model_fields, 1)
    further = {"numbers": {"ties": 0.5}, "streams": {"online": {"loss": 0.1}}}
    rows = [StepRecord.model_validate(fields | further | {"step": step}) for step in range(5)]
    path = tmp_path / "log.jsonl"
    cut_log(path, 3)
    assert not path.exists() and list(read_log(path)) == []
    append_rows(path, rows)
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # torn by a kill
    cut_log(path, 3)
    assert list(read_log(path)) == rows[:3]
    cut_log(path, 0)
    assert list(read_log(path)) == []


def test_pairs_that_teach_nothing_or_do_not_fit_are_dropped_and_counted(
    model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    """The tiny model has 256 positions; pair 1 is the longest of the six, its rejected answer has most tokens."""
    same = pairs[0].model_copy(update={"id": "same", "rejected": pairs[0].chosen})
    endless = pairs[0].model_copy(update={"id": "endless", "rejected": "xyzzy " * 100})
    directory = write_pairs(tmp_path / "pairs", [*pairs, same, endless])
    vlm = load_vlm(model_dir)
    text = "USER: <image>\nDescribe the picture. ASSISTANT: " + pairs[1].rejected + "</s>"
    longest = len(vlm.tokenizer(text)["input_ids"]) - 1 + 9  # nine image tokens in the place of one

    def counts(max_length: int) -> tuple[int, dict[str, int]]:
        out = tmp_path / f"out-{max_length}"
        options = (f"max_length={max_length}", "epochs=null", "max_steps=1")
        manifest = read_manifest(train(model_dir, directory, out, config_with(*options), 0))
        return manifest.counts["pairs_trained_on"], manifest.dropped

    always = {"chosen equals rejected": 1, "longer than the model's positions": 1}
    assert counts(longest) == (6, always)
    assert counts(longest - 1) == (5, always | {"longer than max_length": 1})


def test_nothing_left_to_train_on_is_refused(model_dir: Path, pairs_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 6 pairs .*\(6 longer than max_length\)"):
        train(model_dir, pairs_dir, tmp_path / "out", config_with("max_length=3"), 0)


def test_bad_directories_are_refused_in_one_sentence(
    model_dir: Path, pairs_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    def refused(match: str, model: Path = model_dir, pairs_from: Path = pairs_dir) -> None:
        with pytest.raises(InputError, match=match) as caught:
            train(model, pairs_from, tmp_path / "out", config_with("max_steps=1", "epochs=null"), 0)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists(), "a mistake claims no directory"

    refused("nowhere", pairs_from=tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    write_rows(empty / "pairs.jsonl", [])
    refused("holds no pairs", pairs_from=empty)
    refused("nothing-here", model=tmp_path / "nothing-here")
    blind = tmp_path / "blind"
    blind.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(model_dir / name, blind / name)
    refused("processor", model=blind)
    broken = write_pairs(tmp_path / "broken", pairs)
    picture = broken / "images" / "picture-1.png"
    picture.write_bytes(picture.read_bytes()[:40])
    refused(r"picture-1\.png", pairs_from=broken)

    train(model_dir, pairs_dir, tmp_path / "out-done", config_with("max_steps=1", "epochs=null"), 0)
    with pytest.raises(InputError, match=r"another run .*loss\.beta there: 0\.5, here: 0\.25.*choose another"):
        train(
            model_dir, pairs_dir, tmp_path / "out-done", config_with("max_steps=1", "epochs=null", "loss.beta=0.25"), 0
        )
    assert (tmp_path / "out-done" / "adapter").is_dir()


def test_a_checkpoint_is_json_and_tensors_while_the_run_lasts(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C after its third step, the run has the checkpoint of its second (`checkpoint_every` 2)."""
    real, out = append_rows, tmp_path / "out"

    def interrupted(path: Path, rows: Sequence[StepRecord]) -> int:
        count = real(path, rows)
        if rows[0].step == 2:
            raise KeyboardInterrupt
        return count

    with monkeypatch.context() as patch:
        patch.setattr("sightline.train.run.append_rows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(model_dir, pairs_dir, out, config_with("checkpoint_every=2"), 0)
    position = json.loads((out / "checkpoint" / "step-00000002" / "state.json").read_text())
    assert position["step"] == 2 and len(list(read_log(out / "log.jsonl"))) == 3
    train(model_dir, pairs_dir, out, config_with("checkpoint_every=2"), 0)
    assert [row.step for row in read_log(out / "log.jsonl")] == list(range(6))


def test_a_warm_cache_gives_the_run_that_a_cold_one_gives(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    cold = train(model_dir, pairs_dir, tmp_path / "cold", config_with(), seed=1)
    # In other batches, with another rate: what is kept depends on neither.
    other = config_with("batch_size=3", "optim.lr=0.02", "epochs=1")
    train(model_dir, pairs_dir, tmp_path / "other", other, seed=2)
    warm = train(model_dir, pairs_dir, tmp_path / "warm", config_with(), seed=1)
    assert_same_adapter(cold, warm)
    rates = [read_manifest(out).numbers["cache_hit_rate"] for out in (cold, tmp_path / "other", warm)]
    assert rates[0] < 1 and rates[1:] == [1.0, 1.0]
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("SIGHTLINE_CACHE_GB", "0")
    uncached = train(model_dir, pairs_dir, tmp_path / "uncached", config_with(), seed=1)
    assert_same_adapter(cold, uncached)


def test_activation_checkpointing_changes_memory_alone(model_dir: Path, pairs_dir: Path, tmp_path: Path) -> None:
    settings = ("lora.dropout=0", "epochs=1")
    plain = train(model_dir, pairs_dir, tmp_path / "plain", config_with(*settings), seed=1)
    sparing = config_with(*settings, "activation_checkpointing=true")
    again = train(model_dir, pairs_dir, tmp_path / "sparing", sparing, seed=1)
    weights, others = adapter_weights(plain), adapter_weights(again)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-4, atol=1e-6)


def test_a_model_that_ignores_its_pictures_is_refused(model_dir: Path, pairs_dir: Path, tmp_path: Path) -> None:
    """A projector of zeros: every picture looks alike."""
    blind = tmp_path / "blind"
    shutil.copytree(model_dir, blind)
    weights = load_file(blind / "model.safetensors")
    for name, weight in weights.items():
        if "multi_modal_projector" in name:
            weight.zero_()
    save_file(weights, blind / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="ignores its images"):
        train(blind, pairs_dir, tmp_path / "out", config_with(), seed=1)
    assert not (tmp_path / "out").exists()
    command = ["probe", "--model", str(blind), "--pairs", str(pairs_dir)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "ignores its images" in refused.output
    accepted = CliRunner().invoke(app, ["probe", "--model", str(model_dir), "--pairs", str(pairs_dir)])
    assert accepted.exit_code == 0 and "gray pictures change the log-probs of 12 answers" in accepted.output
