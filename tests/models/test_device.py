"""Manifests record the dtype that a forward pass is actually computed in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sightline.cli import app
from sightline.config import Config
from sightline.models import device
from sightline.models.device import device_name, in_format
from sightline.models.vlm import VLM
from sightline.records.manifest import Computed, Stage, read_manifest
from tests.models.tiny import save_tiny_llava


@pytest.mark.parametrize(("units", "autocast"), [("AVX2", False), ("AVX512", True)])
def test_autocast_is_recorded_where_it_has_an_effect(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: str, autocast: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: units)
    stage = Stage.open(tmp_path / "out", "pairs", Config(), {})
    with in_format(vlm, True):
        assert torch.is_autocast_enabled("cpu") is autocast
    name = device_name(torch.device("cpu"))
    opened = {"name": vlm.path}
    first = Computed(device="cpu", device_name=name, dtype="float32", autocast=autocast, opened=opened)
    assert stage.manifest.computed == (first,)
    with in_format(replace(vlm, dtype=torch.bfloat16), False):
        pass
    assert stage.finish().computed == (
        first,
        Computed(device="cpu", device_name=name, dtype="bfloat16", autocast=False, opened=opened),
    )


def test_a_cpu_has_the_name_that_linux_gives_it_and_some_name_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some(R)  CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: other\n")
    monkeypatch.setattr(device, "CPU_INFO", info)
    assert device_name(torch.device("cpu")) == "Some(R) CPU @ 2.00GHz"
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "none")
    assert device_name(torch.device("cpu"))


def test_every_command_that_runs_a_model_says_what_it_was_computed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """autocast on a CPU with slow bfloat16: on in the config, off in the record."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    save_tiny_llava(tmp_path / "model")
    more = ("--model", "model", "--set", "autocast=true")
    commands = {
        "samples": ("lab", "scenes", "--count", 3, "--set", "described=1"),
        "pairs": ("pairs", "bdhs", "--samples", "samples", *more, "--set", "rho=0.9", "--set", "max_new_tokens=4"),
        "train": ("train", "--pairs", "pairs", *more, "--set", "loss={name: dpo, beta: 0.1}", *LENGTH),
        "eval": ("eval", "--bench", "lab-vqa", "--limit", 2, *more, "--set", "resamples=100"),
        "export": ("export", "model", "model", "--adapter", "train/adapter"),
    }
    monkeypatch.chdir(tmp_path)
    for out, words in commands.items():
        done = CliRunner().invoke(app, [*map(str, words), "--out", out])
        assert done.exit_code == 0, done.output
    records = {out: read_manifest(tmp_path / out) for out in commands}
    plain = Computed(
        device="cpu",
        device_name=device_name(torch.device("cpu")),
        dtype="float32",
        autocast=False,
        opened={"name": "model"},
    )
    assert records["samples"].computed == ()
    for out in ("pairs", "train", "eval"):
        assert records[out].config["autocast"] is True and records[out].computed == (plain,), out
    merged = {"opened": {"name": "model", "adapter": "train/adapter"}}
    assert records["export"].computed == (
        plain.model_copy(update=merged),
        plain.model_copy(update={"dtype": "bfloat16", **merged}),
    )
    assert f"computed on {plain.device_name}" in (tmp_path / "export/README.md").read_text().replace("\\", "")


LENGTH = ("--set", "optim.lr=1e-4", "--set", "max_steps=1")
