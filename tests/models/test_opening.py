"""Opening a model by `ModelSpec`: names, devices, number formats, picture limits, quantization, records."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.config import Config
from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora, merge_and_save, reference_mode, train_fully
from sightline.models.device import resolve_dtype
from sightline.models.encoding import encode_prefix
from sightline.models.features import image_features
from sightline.models.opening import open_model, resolve_spec
from sightline.models.pixels import MAX_PIXELS
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scorer import answer_logps, encode_row
from sightline.models.spec import ModelSpec, is_hub_id, to_spec
from sightline.models.unbatched import unbatched_logps
from sightline.models.vlm import VLM
from sightline.records.manifest import Stage, read_manifest
from tests.models.families import FAMILIES


def distance(vlm: VLM, items: list[ScoreRequest]) -> float:
    """The largest difference between packed log-probs and those of Transformers' forward of each row alone."""
    packed = answer_logps(vlm, items)
    with torch.no_grad():
        alone = unbatched_logps(vlm, [encode_row(vlm, item) for item in items])
    return float((packed.values[packed.mask] - alone).abs().max())


ANSWERS = ("A red cup.", "There are two boats on the water.")


def test_a_name_alone_opens_a_model_as_this_machine_computes_best(tiny_directory: Path) -> None:
    vlm = open_model(tiny_directory)
    assert (vlm.dtype, vlm.device) == (torch.float32, torch.device("cpu"))
    assert vlm.spec.name == str(tiny_directory) and vlm.opened == (("name", str(tiny_directory)),)
    assert resolve_spec(to_spec(tiny_directory)).dtype == "float32"


def test_lab_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (ModelSpec(name="lab").place / "config.json").is_file()
    (tmp_path / "lab").mkdir()
    assert ModelSpec(name="lab").place == Path("lab"), "a folder of that name wins"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "nowhere/at/all"}, "does not exist; name a model directory or a hub id"),
        ({"name": "lab", "revision": "main"}, "is a directory and has no revision main"),
        ({"name": "lab", "adapter": Path("no-adapter")}, "adapter no-adapter does not exist"),
        ({"name": "lab", "device": "gpu"}, "device 'gpu' is unknown; use auto, cpu, cuda"),
        ({"name": "lab", "device": "cuda:7"}, "torch finds no GPU; use cpu or auto"),
        ({"name": "lab", "device": "mps"}, "torch finds none on this machine"),
        ({"name": "lab", "min_pixels": 1000}, "has no lower limit of pixels; leave min_pixels out"),
        ({"name": "lab", "max_tiles": 4}, "cuts pictures into no tiles; leave max_tiles out"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the sentences are those of a machine without a GPU")
def test_what_cannot_be_opened_is_one_sentence(options: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        open_model(ModelSpec.model_validate(options))


def test_the_checkpoints_format_counts_on_a_gpu_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"dtype": "bfloat16"}}))
    assert resolve_dtype("auto", "cuda", tmp_path) == "bfloat16"
    assert resolve_dtype("auto", "cpu", tmp_path) == "float32"
    assert resolve_dtype("float16", "cuda", tmp_path) == "float16"
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "float16"}))
    assert resolve_dtype("auto", "cuda", tmp_path) == "float16"
    (tmp_path / "config.json").write_text("{}")
    assert resolve_dtype("auto", "cuda", tmp_path) == "float32"


def hub_cache(folder: Path, model: Path) -> Path:
    """A hub's cache that holds `model` as owner/tiny, as `huggingface_hub` lays it out."""
    repository = folder / "hub/models--owner--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(model, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("a" * 40)
    return folder


def test_a_hub_id_comes_from_the_hubs_cache_in_every_command(tmp_path: Path, tiny_directory: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(hub_cache(tmp_path / "cache", tiny_directory)), "HF_HUB_OFFLINE": "1"}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sightline", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    run("lab", "scenes", "--count", 3, "--set", "described=1", "--out", "samples")
    built = run(
        *("pairs", "bdhs", "--samples", "samples", "--model", "owner/tiny", "--out", "pairs"),
        *("--set", "rho=0.9", "--set", "max_new_tokens=4"),
    )
    assert built.returncode == 0, built.stderr
    computed = read_manifest(tmp_path / "pairs").computed
    assert [record.opened for record in computed] == [{"name": "owner/tiny"}]
    missing = run("probe", "--model", "owner/other", "--pairs", "pairs")
    assert missing.returncode == 2 and "model owner/other cannot be fetched" in missing.stderr
    assert "Traceback" not in missing.stderr and len(missing.stderr.strip().splitlines()) <= 3


def test_hub_ids_and_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("owner/name") and not is_hub_id("name") and not is_hub_id("a/b/c")
    (tmp_path / "owner").mkdir()
    assert not is_hub_id("owner/name"), "a path in a folder that exists"


def photo(path: Path, size: tuple[int, int]) -> Path:
    gradient = Image.linear_gradient("L").resize(size)
    Image.merge("RGB", (gradient, gradient.rotate(90, expand=False), gradient)).save(path)
    return path


def image_tokens(spec: ModelSpec, picture: Path) -> int:
    vlm = open_model(spec)
    return encode_prefix(vlm, Prefix((picture,), "Describe it.")).ids.count(vlm.image_token_id)


def test_a_limit_in_the_processors_own_terms(tmp_path: Path) -> None:
    folder = FAMILIES["qwen2_5_vl"](tmp_path / "model")
    described = json.loads((folder / "processor_config.json").read_text())
    described["image_processor"]["size"] = {"shortest_edge": 784, "longest_edge": 12_845_056}
    (folder / "processor_config.json").write_text(json.dumps(described))
    phone = photo(tmp_path / "phone.png", (2016, 1512))
    patch = 14 * 14 * 4 if described["image_processor"]["patch_size"] == 14 else 4 * 49
    assert image_tokens(ModelSpec(name=str(folder)), phone) <= MAX_PIXELS / patch, "the stated default"
    few = image_tokens(ModelSpec(name=str(folder), max_pixels=100_352), phone)
    assert 0.8 * 100_352 / patch < few <= 100_352 / patch
    more = image_tokens(ModelSpec(name=str(folder), min_pixels=50_176), photo(tmp_path / "icon.png", (56, 56)))
    assert more >= 50_176 / patch


def test_a_limit_scales_the_picture_where_the_processor_has_none(tmp_path: Path, tiny_directory: Path) -> None:
    picture = photo(tmp_path / "photo.png", (400, 300))
    shrunk = photo(tmp_path / "shrunk.png", (400, 300))
    with Image.open(shrunk) as opened:
        opened.resize((97, 73), Image.Resampling.BICUBIC).save(shrunk)
    limited = encode_prefix(open_model(ModelSpec(name=str(tiny_directory), max_pixels=7_200)), Prefix((picture,), "A?"))
    by_hand = encode_prefix(open_model(tiny_directory), Prefix((shrunk,), "A?"))
    whole = encode_prefix(open_model(tiny_directory), Prefix((picture,), "A?"))
    pixels = limited.images.tensors["pixel_values"]
    assert torch.equal(pixels, by_hand.images.tensors["pixel_values"])
    assert not torch.equal(pixels, whole.images.tensors["pixel_values"])


def test_a_limit_of_tiles(tmp_path: Path) -> None:
    folder = FAMILIES["llava_next"](tmp_path / "model")
    wide = photo(tmp_path / "wide.png", (112, 56))
    all_tiles, one = (image_tokens(ModelSpec(name=str(folder), max_tiles=most), wide) for most in (None, 2))
    vlm = open_model(ModelSpec(name=str(folder), max_tiles=2))
    assert one <= all_tiles
    assert vlm.base.config.image_grid_pinpoints == vlm.processor.image_processor.image_grid_pinpoints
    item = ScoreRequest(Prefix((wide,), "Describe it."), ANSWERS)
    assert distance(vlm, [item]) < 1e-5
    with pytest.raises(InputError, match=r"the smallest grid of .* set max_tiles to"):
        open_model(ModelSpec(name=str(folder), max_tiles=1))


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantized_model_is_scored_packed_as_row_by_row(pictures: list[Path], quantize: str) -> None:
    pytest.importorskip("bitsandbytes")
    spec = ModelSpec.model_validate({"name": "lab", "quantize": quantize})
    vlm, floats = open_model(spec), open_model("lab")
    items = [ScoreRequest(Prefix((picture,), "Describe the picture."), ANSWERS) for picture in pictures[:2]]
    assert distance(vlm, items) < 1e-5
    assert (answer_logps(vlm, items).sums() - answer_logps(floats, items).sums()).abs().max() > 1e-3, "other numbers"
    images = [encode_prefix(vlm, items[0].prefix).images]
    (shown,), (whole,) = image_features(vlm, images), image_features(floats, images)
    assert shown is not None and whole is not None
    assert torch.equal(shown["tokens"], whole["tokens"]), "the vision part keeps its format"
    hidden = GenerateRequest(items[0].prefix, hidden=frozenset({0, 1}))
    assert generate(vlm, [hidden], Sampling(4), batch_size=1)[0].tokens > 0


def test_qlora_trains_and_its_base_cannot_be_merged_or_trained(tmp_path: Path, pictures: list[Path]) -> None:
    pytest.importorskip("bitsandbytes")
    spec = ModelSpec(name="lab", quantize="nf4")
    item = ScoreRequest(Prefix((pictures[0],), "Describe the picture."), ANSWERS)
    vlm = add_lora(open_model(spec), LoraSettings(rank=4, alpha=8.0))
    with torch.no_grad(), reference_mode(vlm):
        reference = answer_logps(vlm, [item]).sums()
    optimizer = torch.optim.SGD([weight for weight in vlm.model.parameters() if weight.requires_grad], lr=0.5)
    margins = []
    for _ in range(3):
        chosen, rejected = (answer_logps(vlm, [item]).sums() - reference)[0]
        loss = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        margins.append((chosen - rejected).item())
    assert margins[0] == 0 and margins[-1] > margins[0]
    with pytest.raises(InputError, match="quantized weights and cannot be merged"):
        merge_and_save(vlm, tmp_path / "merged")
    with pytest.raises(InputError, match="quantized weights and cannot be trained in full"):
        train_fully(open_model(spec))


def test_settings_that_change_numbers_identify_a_run(tmp_path: Path, tiny_directory: Path) -> None:
    def key(**options: object) -> str:
        spec = resolve_spec(ModelSpec.model_validate({"name": str(tiny_directory), **options}))
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        return Stage.open(out, "stage", Config(), spec.inputs()).manifest.key

    plain = key()
    assert key(dtype="float32") == plain == key(device="cpu"), "the same numbers"
    others = [key(dtype="bfloat16"), key(quantize="nf4"), key(max_pixels=10_000), key(attention="eager")]
    assert len({plain, *others}) == 5


def test_the_options_and_the_section_of_a_command(tmp_path: Path, tiny_directory: Path) -> None:
    shutil.copytree(tiny_directory, tmp_path / "model")
    (tmp_path / "c.yaml").write_text(f"model: {{name: {tmp_path}/model, max_pixels: 5000}}\nbenchmarks: [lab-vqa]\n")
    words = ["eval", "--config", f"{tmp_path}/c.yaml", "--limit", "2", "--set", "resamples=100"]

    def run(out: str, *more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, *more, "--out", f"{tmp_path}/{out}"])
        return done.exit_code, str(done.exception or "") + done.output

    assert run("one")[0] == 0
    assert run("two", "--max-pixels", "900", "--set", "model.attention=eager")[0] == 0
    opened = [read_manifest(tmp_path / out).computed[0].opened for out in ("one", "two")]
    assert [one["max_pixels"] for one in opened] == [5000, 900] and opened[1]["attention"] == "eager"
    code, text = run("three", "--set", "model.dtyp=bfloat16")
    assert code and "unknown key 'dtyp'; did you mean 'dtype'?" in text
    code, text = run("four", "--dtype", "bf16")
    assert code == 2 and "bf16" in text
    (tmp_path / "d.yaml").write_text("benchmarks: [lab-vqa]\n")
    done = CliRunner().invoke(app, ["eval", "--config", f"{tmp_path}/d.yaml", "--out", f"{tmp_path}/five"])
    assert done.exit_code == 2 and "no model is given; name one with --model" in done.output


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--quantize", "nf4", "--set", "lora=null"], "quantize=nf4 freezes the weights, and lora=null trains them"),
        (["--set", "model.adapter=a"], "training from the adapter"),
    ],
)
def test_training_refuses_what_contradicts_itself(
    tmp_path: Path, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], reason: str
) -> None:
    (tmp_path / "pairs").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    words = ["train", "--model", str(tiny_directory), "--pairs", "pairs", "--out", "out", "--set", "loss.name=dpo"]
    words += ["--set", "loss.beta=0.1", "--set", "optim.lr=1e-4", "--set", "max_steps=1", *more]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and reason in " ".join(done.output.split())


def test_a_processor_that_lacks_a_package_names_it_and_the_extra(tmp_path: Path) -> None:
    """In a process of its own, where nothing makes torchvision importable."""
    folder = FAMILIES["qwen2_5_vl"](tmp_path / "model")
    code = f"from sightline.models.opening import open_model; open_model({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "needs torchvision, which is not installed; pip install 'sightline[vision]'" in done.stderr
