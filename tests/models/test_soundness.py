"""Damaged and malicious files and weights: a one-line error at loading or at the row, never a traceback."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sightline.cli import app
from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora, save_adapter, start_from
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scalar_head import answer_scores, load_head, new_head, save_head
from sightline.models.scorer import answer_logps
from sightline.models.teacher_forcing import ForcingRequest, forced_tokens
from sightline.models.vlm import VLM
from sightline.models.ways.base import Way
from sightline.models.ways.packed import PackedWay
from sightline.models.ways.row_by_row import RowByRowWay

Change = Callable[[Path], object]


@pytest.fixture
def adapter(vlm: VLM, tmp_path: Path) -> Path:
    save_adapter(add_lora(vlm, LoraSettings(4, 8.0)), tmp_path / "adapter")
    return tmp_path / "adapter"


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def spoil(name: str, part: str, value: float) -> Change:
    """Set one value of the first tensor whose name contains `part`."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / name)
        key = next(key for key in sorted(tensors) if part in key)
        tensors[key].view(-1)[-1] = value
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return change


def configure(key: str, value: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return change


def reweight(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """Change the tensors of a checkpoint, by name."""

    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def without(*parts: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        lost = [name for name in tensors if any(part in name for part in parts)]
        assert lost
        for name in lost:
            del tensors[name]

    return reweight(change)


def with_more(**more: torch.Tensor) -> Change:
    return reweight(lambda tensors: tensors.update({name.replace("__", "."): value for name, value in more.items()}))


def with_layer_9(tensors: dict[str, torch.Tensor]) -> None:
    """A copy of the language model's layer 0, as in a checkpoint whose config states too few layers."""
    more = {name: value for name, value in tensors.items() if "language_model" in name and ".layers.0." in name}
    tensors.update({name.replace(".layers.0.", ".layers.9."): value.clone() for name, value in more.items()})


def pickle_weights(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    torch.save(weights, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


ADAPTERS: list[tuple[str, Change, str]] = [
    ("huge header", write("adapter_model.safetensors", b"\xff" * 8 + b"{}"), r"adapter_model\.safetensors is damaged"),
    ("cut off", cut("adapter_model.safetensors"), r"adapter_model\.safetensors is damaged"),
    ("empty", write("adapter_model.safetensors", b""), r"adapter_model\.safetensors is damaged"),
    ("pickled", pickle_weights, r"adapter_model\.bin is pickled.*convert it to adapter_model\.safetensors"),
    ("absent", lambda folder: (folder / "adapter_model.safetensors").unlink(), r"has no adapter_model\.safetensors"),
    ("unknown type", configure("peft_type", "NOSUCH"), "peft_type is 'NOSUCH', which the installed PEFT does not know"),
    ("no type", configure("peft_type", None), "peft_type is None"),
    ("tokens", configure("peft_type", "PROMPT_TUNING"), "PROMPT_TUNING puts tokens before the prompt"),
    ("rank", configure("r", 10**9), "rank 1000000000, its weights have 4"),
    (
        "NaN",
        spoil("adapter_model.safetensors", "v_proj.lora_B", float("nan")),
        r"the tensor .*v_proj\.lora_B",
    ),
    (
        "infinite",
        spoil("adapter_model.safetensors", "q_proj.lora_A", float("inf")),
        r"q_proj\.lora_A.* NaN",
    ),
    ("config", write("adapter_config.json", b"["), r"adapter_config\.json is not JSON"),
    ("alpha", configure("lora_alpha", "x"), "does not fit the model"),
]


@pytest.mark.parametrize(("change", "words"), [each[1:] for each in ADAPTERS], ids=[each[0] for each in ADAPTERS])
def test_a_broken_adapter_is_refused_in_a_sentence(
    tiny_directory: Path, adapter: Path, change: Change, words: str
) -> None:
    change(adapter)
    with pytest.raises(InputError, match=words) as caught:
        load_vlm(tiny_directory, adapter=adapter)
    assert "\n" not in str(caught.value)


MODELS: list[tuple[str, Change, str]] = [
    ("huge header", write("model.safetensors", b"\xff" * 8 + b"{}"), r"/model\.safetensors is damaged"),
    ("cut off", cut("model.safetensors"), r"/model\.safetensors is damaged"),
    (
        "NaN",
        spoil("model.safetensors", "linear_1.bias", float("nan")),
        r"model\.safetensors: the tensor .*linear_1",
    ),
    (
        "infinite",
        spoil("model.safetensors", "lm_head", float("-inf")),
        r"tensor language_model\.lm_head\.weight",
    ),
    ("missing", without("layers.1.mlp.up_proj"), r"lacks 1 weight \(model\.language_model\.layers\.1\.mlp\.up_proj\.w"),
    (
        "many missing",
        without(".layers.1."),
        r"lacks \d\d weights \(.*\.layers\.1\..*, \.\.\.\), which its config\.json",
    ),
    ("no head", without("lm_head"), r"lacks 1 weight \(lm_head\.weight\)"),
    (
        "extra layer",
        reweight(with_layer_9),
        r"has 9 weights \(.*language_model\.layers\.9\..*for which its config\.json",
    ),
    ("extra bias", with_more(lm_head__bias=torch.zeros(2)), r"has 1 weight \(lm_head\.bias\), for which"),
    (
        "shape",
        reweight(
            lambda tensors: tensors.update({name: value[:-1] for name, value in tensors.items() if "up_" in name})
        ),
        r"the weight \S*layers\.0\.mlp\.up_proj\.weight has the shape \[\d+, \d+\] instead of \[\d+, \d+\]",
    ),
    ("tokenizer", write("tokenizer.json", b"{}"), "no usable processor"),
    ("config", write("config.json", b'{"model_type": "llava", "text_config": 5}'), r"no usable config\.json"),
    ("deep config", write("config.json", b"[" * 100_000), r"no usable config\.json"),
    ("hostile template", write("chat_template.jinja", b"{{ ''.__class__.__mro__ }}"), "cannot be rendered .*unsafe"),
    ("broken template", write("chat_template.jinja", b"{% for %}"), r"cannot be rendered .*chat_template\.jinja"),
    ("raising template", write("chat_template.jinja", b"{{ raise_exception('no users') }}"), r"rendered \(no users\)"),
]


@pytest.mark.parametrize(("change", "words"), [each[1:] for each in MODELS], ids=[each[0] for each in MODELS])
def test_a_broken_model_is_refused_in_a_sentence(
    tiny_directory: Path, tmp_path: Path, change: Change, words: str
) -> None:
    shutil.copytree(tiny_directory, tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(InputError, match=words) as caught:
        load_vlm(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_weights_of_a_part_that_the_model_lacks_are_ignored_with_a_warning(
    tiny_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A value head, say: it changes no log-prob."""
    shutil.copytree(tiny_directory, tmp_path / "model")
    with_more(v_head__weight=torch.ones(3))(tmp_path / "model")
    with caplog.at_level("WARNING"):
        vlm = load_vlm(tmp_path / "model")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"{tmp_path / 'model'}: ignoring 1 weight (v_head.weight), which this type of model does not have"
    plain = load_vlm(tiny_directory).base.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in vlm.base.state_dict().items())


def test_a_tied_head_need_not_be_in_the_file(tiny_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_directory, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    without("lm_head")(tmp_path / "model")
    base = load_vlm(tmp_path / "model").base
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight


def test_a_weight_beyond_the_number_format_is_told_apart_from_a_bad_file(tiny_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_directory, tmp_path / "model")
    spoil("model.safetensors", "linear_1.bias", 1e6)(tmp_path / "model")
    assert load_vlm(tmp_path / "model").dtype == torch.float32
    with pytest.raises(
        InputError, match=r"multi_modal_projector\.linear_1\.bias is not finite in float16; set dtype=float32"
    ):
        load_vlm(tmp_path / "model", dtype="float16")


def test_an_adapter_to_start_from_is_looked_at_too(vlm: VLM, tiny_directory: Path, adapter: Path) -> None:
    fresh = add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0))
    start_from(fresh, adapter)
    spoil("adapter_model.safetensors", "v_proj.lora_B", float("nan"))(adapter)
    with pytest.raises(InputError, match="has NaN or infinite values"):
        start_from(fresh, adapter)


def test_the_command_ends_with_code_2_and_one_line(tiny_directory: Path, adapter: Path, tmp_path: Path) -> None:
    spoil("adapter_model.safetensors", "v_proj.lora_B", float("nan"))(adapter)
    words = ["eval", "--model", tiny_directory, "--adapter", adapter, "--out", tmp_path / "out"]
    words += ["--bench", "lab-vqa", "--limit", 2]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2 and "NaN or infinite values" in done.stderr, done.output
    assert "Traceback" not in done.output


@pytest.fixture
def broken(vlm: VLM) -> VLM:
    """A model with a NaN embedding of a token that only the second prompt has."""
    token = vlm.tokenizer.encode(" umbrella", add_special_tokens=False)[0]
    with torch.no_grad():
        vlm.base.get_input_embeddings().weight[token] = float("nan")
    return vlm


def prefixes_of(pictures: list[Path]) -> list[Prefix]:
    return [Prefix((pictures[0],), "Describe the picture."), Prefix((pictures[1],), "Where is an umbrella?")]


ROW = r"computes NaN for the prompt 'Where is an umbrella\?' about picture-1\.png"


@pytest.mark.parametrize("way", [PackedWay(), RowByRowWay()])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_names_the_row_whose_logits_are_nan(
    broken: VLM, pictures: list[Path], way: Way, temperature: float
) -> None:
    vlm, prefixes = replace(broken, way=way), prefixes_of(pictures)
    how = Sampling(4, temperature=temperature)
    assert generate(vlm, [GenerateRequest(prefixes[0])], how, batch_size=2)[0].tokens > 0
    with pytest.raises(InputError, match=ROW):
        generate(vlm, [GenerateRequest(prefix) for prefix in prefixes], how, batch_size=2)


@pytest.mark.parametrize("way", [PackedWay(), RowByRowWay()])
def test_scoring_names_the_row_whose_log_probs_are_nan(broken: VLM, pictures: list[Path], way: Way) -> None:
    vlm = replace(broken, way=way)
    items = [ScoreRequest(prefix, ("A red cup.", "A blue plate stands here.")) for prefix in prefixes_of(pictures)]
    with torch.no_grad():
        assert answer_logps(vlm, items[:1]).sums().isfinite().all()
        with pytest.raises(InputError, match=ROW):
            answer_logps(vlm, items)
        with pytest.raises(InputError, match=ROW):
            answer_scores(vlm, new_head(vlm), items)
        with pytest.raises(InputError, match=ROW):
            forced_tokens(
                vlm, [ForcingRequest(item.prefix, item.answers[0]) for item in items], temperature=0.0, batch_size=2
            )
    assert answer_logps(vlm, items).sums().isnan().any(1).tolist() == [False, True]  # with gradients the loop decides


def test_a_head_that_is_not_finite_is_refused(vlm: VLM, tmp_path: Path) -> None:
    head = new_head(vlm)
    with torch.no_grad():
        head.weight[3] = float("nan")
    save_head(head, "reward", tmp_path)
    with pytest.raises(InputError, match=r"head\.safetensors has NaN or infinite values"):
        load_head(vlm, "reward", tmp_path)
