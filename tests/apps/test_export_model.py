"""An exported model: plain Transformers opens it, it scores as it was meant to, and the card says what records say."""

import hashlib
import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.models.adapters import LoraSettings, add_lora, save_adapter, save_model
from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from sightline.records.manifest import read_manifest
from tests.models.plain import token_logps
from tests.models.tiny import save_pictures, save_tiny_llava
from tests.study.directories import whole_run

PROMPT, ANSWER = "Describe the picture.", "A red cup and a blue plate."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and an adapter that changes what it says."""
    root = tmp_path_factory.mktemp("export")
    vlm = add_lora(load_vlm(save_tiny_llava(root / "model")), LoraSettings(4, 8.0, 0.0, None, False), seed=1)
    torch.manual_seed(0)
    for name, weight in vlm.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.2)
    save_adapter(vlm, root / "adapter")
    save_pictures(root)
    return root


def export(place: Path, out: Path, *more: object) -> Result:
    words = ["export", "model", place / "model", "--adapter", place / "adapter", "--out", out, *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def plain(directory: Path, picture: Path) -> torch.Tensor:
    """Log-probs of an answer by nothing of ours."""
    model: Any = AutoModelForImageTextToText.from_pretrained(directory)
    processor: Any = AutoProcessor.from_pretrained(directory)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return token_logps(model, processor, [picture], PROMPT, ANSWER)


def quoted(run: dict[str, Path]) -> tuple[object, ...]:
    """Options that name the directories of a run."""
    return ("--eval", run["aligned-0"], "--pairs", run["pairs"], "--train", run["train-0"])


def numbers(out: Path) -> dict[str, float]:
    return read_manifest(out).numbers


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported in float32."""
    out = tmp_path_factory.mktemp("out") / "float32"
    done = export(place, out, "--set", "weights=float32")
    assert done.exit_code == 0, done.output
    return out


def test_the_merged_model_is_model_and_adapter(place: Path, whole: Path) -> None:
    picture = place / "picture-0.png"
    vlm = load_vlm(place / "model", adapter=place / "adapter")
    own = answer_logps(vlm, [ScoreRequest(Prefix((picture,), PROMPT), (ANSWER,))])
    values = own.values[0, 0][own.mask[0, 0]].double()
    base = plain(place / "model", picture)
    assert torch.allclose(plain(whole, picture), values, atol=1e-4)
    assert (base - values).abs().max() > 0.1  # the adapter does something
    assert numbers(whole)["reloaded_largest"] == 0 and numbers(whole)["changed_largest"] < 1e-4


def test_bfloat16_is_rounded_once_and_reloads_exactly(place: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export(place, out)
    assert done.exit_code == 0 and "bfloat16" in done.stdout, done.output
    assert numbers(out)["reloaded_largest"] == 0 and 0 < numbers(out)["changed_mean"] < 0.2
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and numbers(out)["bytes"] < 0.6 * numbers(whole)["bytes"]
    exact = dict(AutoModelForImageTextToText.from_pretrained(whole).named_parameters())
    for name, weight in AutoModelForImageTextToText.from_pretrained(out).named_parameters():
        assert torch.equal(weight, exact[name].bfloat16()), name
    again = export(place, out)  # done already
    assert again.exit_code == 0 and again.stdout == done.stdout


def changed_by(model: Path, folder: Path, *targets: str) -> tuple[Path, torch.Tensor]:
    """An adapter on these modules that changes what the model says, and the log-probs that it gives."""
    vlm = add_lora(load_vlm(model), LoraSettings(4, 8.0, targets=targets), seed=1)
    torch.manual_seed(0)
    for name, weight in vlm.model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            weight.data.normal_(0, 0.2)
    save_adapter(vlm, folder)
    opened = load_vlm(model, adapter=folder)
    own = answer_logps(opened, [ScoreRequest(Prefix((model.parent / "picture-0.png",), PROMPT), (ANSWER,))])
    return folder, own.values[0, 0][own.mask[0, 0]].double()


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one matrix for embedding and head, as the lab's has it."""
    root = tmp_path_factory.mktemp("tied")
    save_pictures(root)
    model: Any = AutoModelForImageTextToText.from_pretrained(save_tiny_llava(root / "whole"))
    for config in (model.config, model.config.text_config):
        config.tie_word_embeddings = True
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    model.save_pretrained(root / "model")
    AutoProcessor.from_pretrained(root / "whole").save_pretrained(root / "model")  # type: ignore[no-untyped-call]
    assert "language_model.lm_head.weight" not in load_file(root / "model/model.safetensors")
    return root


@pytest.mark.parametrize("targets", [("lm_head", "q_proj"), ("embed_tokens",), ("lm_head", "embed_tokens", "v_proj")])
def test_an_adapter_on_a_tied_head_or_embedding_is_merged_into_a_model_that_computes_the_same(
    tied: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    """Head and embedding are split: plain Transformers gives the adapter's log-probs, the other matrix is as it was."""
    adapter, values = changed_by(tied / "model", tmp_path / "adapter", *targets)
    words = ["export", "model", tied / "model", "--adapter", adapter, "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--set", "weights=float32")])
    assert done.exit_code == 0, done.output
    picture = tied / "picture-0.png"
    assert (plain(tied / "model", picture) - values).abs().max() > 0.1  # the adapter does something
    assert torch.allclose(plain(tmp_path / "out", picture), values, atol=1e-4)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["tie_word_embeddings"] is False and config["text_config"]["tie_word_embeddings"] is False
    weights, base = load_file(tmp_path / "out/model.safetensors"), load_file(tied / "model/model.safetensors")
    matrix = "language_model.model.embed_tokens.weight"
    assert torch.equal(weights[matrix], base[matrix]) is ("embed_tokens" not in targets)
    assert torch.equal(weights["language_model.lm_head.weight"], base[matrix]) is ("lm_head" not in targets)


def test_a_tied_model_stays_tied_where_neither_matrix_is_changed(tied: Path, tmp_path: Path) -> None:
    adapter, values = changed_by(tied / "model", tmp_path / "adapter", "q_proj")
    words = ["export", "model", tied / "model", "--adapter", adapter, "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--set", "weights=float32")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")
    assert torch.allclose(plain(tmp_path / "out", tied / "picture-0.png"), values, atol=1e-4)


@pytest.mark.parametrize("place_of_fault", ["merging", "saving"])
def test_a_model_that_does_not_score_as_it_should_is_refused_and_removed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place_of_fault: str
) -> None:
    """With a merge that loses the adapter, or a file that lost a weight, nothing is left but the open manifest."""

    def unmerged(model: Any) -> Any:
        return model.unload()

    def spoiled(vlm: VLM, folder: Path) -> None:
        save_model(vlm, folder)
        weights = load_file(folder / "model.safetensors")
        weights["language_model.model.norm.weight"] *= 1.01
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    fault = {"merging": ("merge_adapter", unmerged), "saving": ("save_model", spoiled)}[place_of_fault]
    with monkeypatch.context() as patched:
        patched.setattr(f"sightline.apps.export.run.{fault[0]}", fault[1])
        done = export(place, tmp_path / "out")
    assert done.exit_code == 2 and "nats on a token from" in done.stderr and "tolerance is 0.001" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    assert not read_manifest(tmp_path / "out").complete
    assert export(place, tmp_path / "out").exit_code == 0  # the same command, without the fault, fills it


#: What vLLM's LLaVA finds: its tower has the level `vision_model`, and head and layers lie below `language_model`.
VLLM_NAMES = (
    "vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "vision_tower.vision_model.pre_layrnorm.weight",
    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
    "multi_modal_projector.linear_1.weight",
    "language_model.model.embed_tokens.weight",
    "language_model.model.layers.0.self_attn.q_proj.weight",
    "language_model.model.norm.weight",
    "language_model.lm_head.weight",
)


def test_weights_have_the_names_of_published_checkpoints(place: Path, whole: Path, tmp_path: Path) -> None:
    """Whichever names the model was opened from, and again when what was saved is saved again."""
    names = set(load_file(whole / "model.safetensors"))
    assert set(VLLM_NAMES) <= names
    assert all(name.startswith(("vision_tower.vision_model.", "multi_", "language_model.")) for name in names)
    before = set(load_file(place / "model/model.safetensors"))
    assert {name.replace("vision_tower.vision_model.", "vision_tower.") for name in names} == {
        name.replace("vision_tower.vision_model.", "vision_tower.") for name in before
    }
    vlm = load_vlm(whole)
    save_model(vlm, tmp_path / "again")
    assert set(load_file(tmp_path / "again/model.safetensors")) == names
    again = load_vlm(tmp_path / "again").model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in vlm.model.state_dict().items())


@pytest.mark.skipif(importlib.util.find_spec("compressed_tensors") is None, reason="needs compressed-tensors")
@pytest.mark.parametrize(("weights", "steps"), [("int8", 254), ("int4", 14)])
def test_quantized_weights_are_as_close_as_bits_allow(
    place: Path, whole: Path, tmp_path: Path, weights: str, steps: int
) -> None:
    """Each weight lies within half a step (and bfloat16's rounding) of the exact one; the card has the distance."""
    out = tmp_path / "out"
    done = export(place, out, "--set", f"weights={weights}")
    assert done.exit_code == 0, done.output
    model = AutoModelForImageTextToText.from_pretrained(out)
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad():
        model(**inputs)  # weights are unpacked at the first pass
    found = model.model.language_model.layers[0].mlp.down_proj.weight.float()
    exact = AutoModelForImageTextToText.from_pretrained(whole).model.language_model.layers[0].mlp.down_proj.weight
    group = exact.shape[1] if weights == "int8" else 32
    step = exact.detach().unflatten(1, (-1, group)).abs().amax(-1, keepdim=True) / (steps / 2)
    gap = (found.detach() - exact.detach()).unflatten(1, (-1, group)).abs()
    assert (gap <= 0.55 * step + 0.01 * exact.detach().abs().unflatten(1, (-1, group))).all() and gap.max() > 0
    vision = model.model.vision_tower.encoder.layers[0].mlp.fc1.weight
    assert vision.dtype == torch.bfloat16
    card = (out / "README.md").read_text()
    measured = numbers(out)
    assert f"{measured['changed_mean']:.2g}" in card and measured["changed_mean"] > 0
    assert measured["changed_mean"] < {"int8": 0.5, "int4": 5}[weights]
    assert "results are those of the unquantized model" in card


def test_checksums_are_those_of_the_files(whole: Path) -> None:
    lines = [line.split("  ") for line in (whole / "SHA256SUMS").read_text().splitlines()]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {name for _, name in lines}
    for digest, name in lines:
        assert hashlib.sha256((whole / name).read_bytes()).hexdigest() == digest
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=whole, check=False)
    assert done.returncode == 0


def test_the_card_quotes_records_and_says_what_is_missing(place: Path, whole: Path, tmp_path: Path) -> None:
    card = (whole / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n") and "None: no evaluation was given" in card
    assert "no training directory was given" in card and "no measurements at all" in card
    run = whole_run(tmp_path / "run")
    hostile = "</b><script>x</script> | `y` # z"
    done = export(place, tmp_path / "out", *quoted(run), "--set", f"name={json.dumps(hostile)}")
    assert done.exit_code == 0, done.output
    card = (tmp_path / "out/README.md").read_text()
    lines = card.splitlines()
    assert all(line.startswith("    ") for line in lines if "<" in line)  # nothing but code has markup
    assert "| shapes | " in card and "34 steps" not in card and "120 steps" in card and "equal: 4" in card
    assert "    rho: 0.9" in lines and "95 % interval" in card and "Measured before the export" in card


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--set", "weights=int3"), "weights"),
        (("--train", "{model}"), "has no manifest.json"),
        (("--eval", "{model}"), "holds no finished benchmark"),
        (("--adapter", "{model}"), "is not an adapter directory"),
    ],
)
def test_bad_input_leaves_the_directory_free(place: Path, tmp_path: Path, more: tuple[str, ...], sentence: str) -> None:
    done = export(place, tmp_path / "out", *(word.format(model=place / "model") for word in more))
    assert done.exit_code == 2 and sentence in " ".join(done.stderr.split()), done.output
    assert not (tmp_path / "out").exists()


def test_layouts_of_pairs_are_written_by_the_same_door(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["export", "--help"])
    assert all(name in listed.output for name in ("trl", "llama-factory", "ms-swift", "model"))
    wrong = CliRunner().invoke(app, ["export", "trll", str(tmp_path), "--out", str(tmp_path / "x")])
    assert wrong.exit_code == 2 and "trl" in wrong.output
