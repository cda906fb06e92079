"""Loading of checkpoints: mode, dtype, errors, and the hash of weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sightline.errors import InputError
from sightline.models.loading import load_vlm, weights_hash


def copy_without(source: Path, target: Path, *names: str) -> Path:
    shutil.copytree(source, target)
    for name in names:
        (target / name).unlink()
    return target


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loads_in_evaluation_mode_and_the_dtype_asked_for(tiny_directory: Path, dtype: str) -> None:
    vlm = load_vlm(str(tiny_directory), dtype=dtype)
    assert not vlm.model.training
    assert {parameter.dtype for parameter in vlm.model.parameters()} == {getattr(torch, dtype)} == {vlm.dtype}
    assert vlm.path == str(tiny_directory)
    assert vlm.end_ids == {vlm.tokenizer.eos_token_id}
    assert vlm.image_token_id == vlm.tokenizer.convert_tokens_to_ids("<image>")


def test_a_missing_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", str(tmp_path / "none")):
        with pytest.raises(InputError, match="does not exist"):
            load_vlm(path)


def test_a_directory_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_vlm(tmp_path)


def test_a_directory_without_a_processor(tiny_directory: Path, tmp_path: Path) -> None:
    everything = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for number, names in enumerate((everything, everything[:1], everything[1:3])):
        with pytest.raises(InputError, match="processor"):
            load_vlm(copy_without(tiny_directory, tmp_path / str(number), *names))


def test_a_processor_without_a_chat_template(tiny_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chat template"):
        load_vlm(copy_without(tiny_directory, tmp_path / "copy", "chat_template.jinja"))


def test_a_directory_without_weights(tiny_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights"):
        load_vlm(copy_without(tiny_directory, tmp_path / "copy", "model.safetensors"))


def test_an_unknown_model_type(tiny_directory: Path, tmp_path: Path) -> None:
    directory = copy_without(tiny_directory, tmp_path / "copy")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "no-such-model"}))
    with pytest.raises(InputError, match=r"'no-such-model', which Transformers .* does not know; install"):
        load_vlm(directory)


def test_an_unknown_dtype_and_a_missing_adapter(tiny_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float64"):
        load_vlm(tiny_directory, dtype="float64")
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        load_vlm(tiny_directory, adapter=tmp_path)


def test_the_hash_follows_the_weights_and_nothing_else(tiny_directory: Path, tmp_path: Path) -> None:
    directory = copy_without(tiny_directory, tmp_path / "copy")
    before = weights_hash(tiny_directory)
    assert weights_hash(directory) == before
    (directory / "README.md").write_text("A note.")
    assert weights_hash(directory) == before
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert weights_hash(directory) != before
    with pytest.raises(InputError, match="no weights"):
        weights_hash(tmp_path)
