"""Two real processes (gloo) give the run of one: copies that add up gradients, and weights cut over both by FSDP2.

Tolerances are those of float32 sums in another order: losses agree to 1e-5, weights to 1e-4 after four steps.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file

from sightline.errors import InputError
from sightline.models.loading import load_vlm
from sightline.models.processes import Processes
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair
from sightline.records.store import write_rows
from sightline.train import run as train_stage
from sightline.train.log import read_log
from sightline.train.processes import is_sharding_requested, sum_gradients
from tests.launching import launched
from tests.train import worker
from tests.train.test_run import write_pairs

KINDS = ("lora", "full", "sharded", "sharded-lora")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def runs(
    model_dir: Path, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[Row], list[Row], Path]]:
    """For each kind the rows of one process and of two, and the folder of the two. One of the pairs has no picture.

    Steps take five pairs and one, so that the second process has less to do, and once nothing.
    """
    rows = [pair.model_copy(update={"images": ()}) if number == 2 else pair for number, pair in enumerate(pairs)]
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    for folder in (one, two):
        write_rows(folder / "pairs.jsonl", rows)
    for kind in ("lora", "full"):
        worker.run(one, model_dir, kind, rows, Processes())
    launched(2, ["tests.train.worker", str(two), str(model_dir), *KINDS])

    def read(folder: Path, kind: str) -> list[Row]:
        rows: list[Row] = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
        return rows

    plain = {"sharded": "full", "sharded-lora": "lora"}
    logs = {kind: (read(one, plain.get(kind, kind)), read(two, kind), two) for kind in KINDS}
    return {**logs, "": ([], [], one)}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_series_of_one(runs: dict[str, tuple[list[Row], list[Row], Path]], kind: str) -> None:
    """Loss, rewards, lengths and the gradient's norm of every step, stopped and resumed half way."""
    alone, together, _ = runs[kind]
    assert [row["pairs"] for row in together] == [5, 1, 5, 1]
    assert together[0]["loss"] != pytest.approx(together[2]["loss"], rel=1e-2), "it learns"
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            if isinstance(value, float):
                assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("kind", ["lora", "full", "sharded"])
def test_two_processes_save_the_weights_of_one_as_plain_files(
    runs: dict[str, tuple[list[Row], list[Row], Path]], model_dir: Path, kind: str
) -> None:
    name = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    one, two = runs[""][2] / kind.replace("sharded", "full"), runs[kind][2] / kind
    alone, together = load_file(one / name), load_file(two / name)
    assert alone.keys() == together.keys()
    for key, weight in alone.items():
        torch.testing.assert_close(together[key], weight, rtol=1e-3, atol=1e-4)
    if kind == "sharded":
        shape = {k: v.shape for k, v in load_file(model_dir / name).items()}
        assert {k: v.shape for k, v in together.items()} == shape, "a plain model of the same shape"
        reopened = load_vlm_from(two, model_dir)
        assert all(weight.isfinite().all() for weight in reopened.values())


def test_a_process_that_is_not_the_first_never_holds_the_whole_model(model_dir: Path, tmp_path: Path) -> None:
    """Two processes: the second one peaks at its half and the largest single tensor, and keeps its half alone."""
    launched(2, ["tests.train.worker", str(tmp_path), str(model_dir), "memory"])
    first, second = (json.loads((tmp_path / f"memory-{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert first["here"] + second["here"] == second["whole"] == first["whole"]
    assert abs(second["here"] - second["whole"] / 2) < 0.02 * second["whole"]
    slack = 0.15 * second["whole"]  # buffers, and padding of tensors whose rows do not divide
    assert second["largest"] < 0.3 * second["whole"], "the bound below says something"
    assert second["peak"] < second["here"] + 2 * second["largest"] + slack < 1.3 * second["whole"]
    assert second["end"] < second["here"] + slack < 0.7 * second["whole"]
    assert first["peak"] > second["whole"], "the first one reads the checkpoint"


def load_vlm_from(directory: Path, processor: Path) -> dict[str, torch.Tensor]:
    """The weights of a saved model, opened as any tool would."""
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (directory / name).write_bytes((processor / name).read_bytes())
    return dict(load_vlm(directory).model.state_dict())


def test_shares_are_disjoint_and_join_in_order() -> None:
    items = list(range(7))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]

    class FixedProcesses(Processes):
        def gather(self, value: Any) -> Any:
            return shares

    assert FixedProcesses(0, 3).join(shares[0]) == items
    assert Processes().join(items) == items


def test_one_process_is_the_plain_case() -> None:
    alone = Processes()
    weight = torch.nn.Parameter(torch.zeros(2))
    sum_gradients(alone, [weight])
    assert weight.grad is None and alone.share([1, 2]) == [1, 2] and alone.gather(3) == [3] and alone.is_first
    assert alone.on_first(lambda: 5) == 5

    def refuse() -> None:
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        alone.on_all(refuse)


def test_sharding_is_asked_for_by_the_launcher() -> None:
    assert is_sharding_requested({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}) and not is_sharding_requested({})
    assert not is_sharding_requested({"ACCELERATE_USE_FSDP": "false"})
    with pytest.raises(InputError, match="fsdp_version: 2"):
        is_sharding_requested({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"})
    with pytest.raises(InputError, match=r"not run under DeepSpeed; launch with fsdp2\.yaml"):
        is_sharding_requested({"ACCELERATE_USE_DEEPSPEED": "true"})


LAUNCH = Path(train_stage.__file__).parent / "launch"


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_launch_config_is_understood_by_accelerate(path: Path) -> None:
    """Accelerate's own reader refuses unknown keys; its launcher's parser knows every key of the sections."""
    config = ClusterConfig.from_yaml_file(path)
    assert config.mixed_precision == "no" and config.num_processes > 1
    known = vars(launch_command_parser().parse_args(["script"]))
    assert {key for key in config.fsdp_config if key not in known} == set()
    command = path.read_text(encoding="utf-8").splitlines()[0]
    assert command.startswith(
        f"# accelerate launch --config_file sightline/train/launch/{path.name} -m sightline train"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("config", "lora"), [("ddp", True), ("fsdp2", False)])
def test_accelerate_launch_gives_the_run_of_the_plain_command(
    model_dir: Path, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, *, lora: bool
) -> None:
    """The commands of docs/guides/scale.md, with two processes: same log, same weights, one directory, said once."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    folder = write_pairs(tmp_path / "pairs", pairs)
    settings = ["loss.name=dpo", "loss.beta=0.5", "optim.lr=0.003", "max_steps=3", "batch_size=4", "device=cpu"]
    settings += [] if lora else ["lora=null"]
    command = ["sightline", "train", "--model", str(model_dir), "--pairs", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    launched(1, [*command, "--out", str(tmp_path / "one")])
    how = ["accelerate.commands.launch", "--config_file", str(LAUNCH / f"{config}.yaml"), "--num_processes", "2"]
    outputs = launched(1, [*how, "-m", *command, "--out", str(tmp_path / "two")])
    one, two = (list(read_log(tmp_path / name / "log.jsonl")) for name in ("one", "two"))
    assert [row.loss for row in two] == pytest.approx([row.loss for row in one], rel=1e-4) and len(two) == 3
    name = "adapter/adapter_model.safetensors" if lora else "model/model.safetensors"
    alone, together = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    assert alone.keys() == together.keys()
    for key, weight in alone.items():
        torch.testing.assert_close(together[key], weight, rtol=1e-3, atol=1e-4)
    counts = [read_manifest(tmp_path / name).counts for name in ("one", "two")]
    assert counts[0] == counts[1] and outputs[0].count("3/3") == 1
    wrong = [*how, "-m", *command, "--out", str(tmp_path / "two"), "--set", "loss.beta=0.25"]
    refused = subprocess.run([sys.executable, "-m", *wrong], capture_output=True, text=True, check=False, timeout=240)
    assert refused.returncode != 0 and refused.stderr.count("error: output directory") == 1
