"""The recipe of the base VLM from end to end at a tiny size, and that what it trains on is what inference feeds.

Nothing here is good at anything; the committed weights are looked at in `test_base`.
"""

import copy
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from sightline.errors import InputError
from sightline.lab import card
from sightline.lab.drawing import render
from sightline.lab.language import ReferenceNoise
from sightline.lab.recipe import train_base as recipe_module
from sightline.lab.recipe.config import Phase, RecipeConfig
from sightline.lab.recipe.joint import (
    IGNORED,
    Conversation,
    TokenRow,
    collate,
    conversation,
    encode_pictures,
    length_batches,
    next_token_loss,
    tokenize,
)
from sightline.lab.recipe.optimize import make_optimizers, schedule_steps, take_step
from sightline.lab.recipe.perception import Views, _places, align, normalize, patch_features
from sightline.lab.recipe.train_base import train_base
from sightline.lab.words import KINDS, WorldConfig, spoken_names
from sightline.lab.world import Scene, sample_scene, scenes
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate, image_token_count
from sightline.models.vlm import VLM

TINY = RecipeConfig(
    width=64,
    vision_layers=1,
    language_layers=1,
    vocabulary=420,
    perception_scenes=24,
    perception_batch=8,
    perception_steps=2,
    prior_rows=24,
    train_scenes=24,
    align_steps=2,
    phases=(
        Phase(steps=2, described=0.5, text_only=0.3),
        Phase(steps=2, described=0.8, text_only=0.1),
    ),
    batch_size=8,
)
STAGES = ("tower", "prior", "aligned", "instructed-0", "instructed-1")
PATCHES = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The whole recipe, once."""
    out = tmp_path_factory.mktemp("base") / "base"
    train_base(TINY, out, Console(quiet=True))
    yield out
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def vlm(base: Path) -> VLM:
    return load_vlm(base)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        render(sample_scene(WorldConfig(), "validation", number)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def conversations(count: int = 40) -> list[tuple[Conversation, Scene, int | None]]:
    """Rows of every form: descriptions and rounds of questions, with and without a picture, whose number comes last."""
    rng = np.random.default_rng(0)
    noise = ReferenceNoise()
    return [
        (conversation(rng, scene, noise, described=0.5), scene, number if number % 3 > 0 else None)
        for number, scene in enumerate(scenes(WorldConfig(), "train", count))
    ]


def messages(row: Conversation, *, shown: bool) -> list[dict[str, Any]]:
    """The conversation as the chat template takes it."""
    turns: list[dict[str, Any]] = []
    for number, (question, answer) in enumerate(row):
        picture = [{"type": "image"}] if number == 0 and shown else []
        turns.append({"role": "user", "content": [*picture, {"type": "text", "text": question}]})
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_transformers_opens_the_result(base: Path, pictures: list[Path]) -> None:
    model: Any = AutoModelForImageTextToText.from_pretrained(base)
    processor = AutoProcessor.from_pretrained(base)  # type: ignore[no-untyped-call]
    assert (type(model).__name__, type(processor).__name__) == ("LlavaForConditionalGeneration", "LlavaProcessor")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]
    text = processor.apply_chat_template(question, add_generation_prompt=True)
    inputs = processor(text=text, images=[Image.open(pictures[0])], return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == PATCHES
    assert inputs["input_ids"][0, :2].tolist().count(processor.tokenizer.bos_token_id) == 1
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert ids.shape[1] - inputs["input_ids"].shape[1] in range(1, 5)


def test_sightline_opens_the_result(vlm: VLM, pictures: list[Path]) -> None:
    prefix = Prefix((pictures[0],), "Describe the image.")
    assert image_token_count(vlm, prefix) == PATCHES
    assert vlm.end_ids == {vlm.tokenizer.eos_token_id}
    (generation,) = generate(vlm, [GenerateRequest(prefix, "This is a")], Sampling(4), batch_size=1)
    assert 1 <= generation.tokens <= 4


def test_weights_are_bfloat16_and_the_head_is_the_embedding(base: Path) -> None:
    with safe_open(base / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
        names = set(file.keys())
    assert kinds == {"BF16"}
    assert not [name for name in names if "lm_head" in name]
    model = load_vlm(base).model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_recipe_lies_beside_the_weights(base: Path) -> None:
    assert RecipeConfig.model_validate_json((base / "recipe.json").read_text()) == TINY
    assert {path.stem for path in (base / "work").glob("*.safetensors")} == set(STAGES)


def test_every_stage_trains_what_it_should(base: Path) -> None:
    """Prior: the language model. Alignment: the projector alone. Instruction: both. The tower: only before."""
    tower, prior, aligned, instructed, last = (load_file(base / f"work/{name}.safetensors") for name in STAGES)

    def parts(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
        changed = [name for name in one if not torch.equal(one[name], other[name])]
        return {next(p for p in ("vision", "projector", "language") if p in name) for name in changed}

    assert parts(prior, aligned) == {"projector"}
    assert parts(aligned, instructed) == parts(instructed, last) == {"projector", "language"}
    of_tower = {name: value for name, value in last.items() if "vision_tower" in name}
    assert len(of_tower) == len(tower) > 10
    for name, value in tower.items():
        assert torch.equal(next(v for n, v in of_tower.items() if n.endswith(name)), value)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 3])
def test_a_run_that_lost_its_last_stages_ends_with_the_same_weights(base: Path, tmp_path: Path, lost: int) -> None:
    out = tmp_path / "base"
    shutil.copytree(base / "work", out / "work")
    for name in STAGES[-lost:]:
        (out / f"work/{name}.safetensors").unlink()
    train_base(TINY, out, Console(quiet=True))
    assert (out / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    for name in STAGES:
        resumed, wanted = (load_file(folder / f"work/{name}.safetensors") for folder in (out, base))
        assert resumed.keys() == wanted.keys() and all(torch.equal(resumed[key], wanted[key]) for key in wanted)


def test_stages_of_another_recipe_are_not_taken(base: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()}
    other = TINY.model_copy(update={"perception_steps": 3})
    with pytest.raises(InputError, match=r"another recipe \(perception_steps there: 2, here: 3\)"):
        train_base(other, base, Console(quiet=True))
    (tmp_path / "samples.jsonl").touch()
    with pytest.raises(InputError, match=r"holds other files \('samples.jsonl'\)"):
        train_base(TINY, tmp_path, Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()} == before


# --- training sees what inference feeds -------------------------------------------------------------------------------


def test_rows_are_tokenized_as_the_processor_does(vlm: VLM) -> None:
    """Prompt, picture, answers, and all turns of a conversation; labels on the answers and their ends alone."""
    seen = 0
    for row, scene, picture in conversations():
        shown = picture is not None
        token_row = tokenize(vlm.tokenizer, row, picture, PATCHES)
        text = vlm.processor.apply_chat_template(messages(row, shown=shown), tokenize=False)
        encoded = vlm.processor(text=text, images=[render(scene)] if shown else None)
        assert list(token_row.ids) == list(encoded["input_ids"][0])
        assert token_row.ids.count(vlm.image_token_id) == (PATCHES if shown else 0)
        answers = "".join(f" {answered}</s>" for _, answered in row)
        assert vlm.tokenizer.decode([i for i in token_row.labels if i != IGNORED]) == answers
        assert all(label in (IGNORED, token) for label, token in zip(token_row.labels, token_row.ids, strict=True))
        seen += len(row)
    assert seen > 60


def test_rows_are_encoded_as_for_scoring(vlm: VLM, pictures: list[Path]) -> None:
    for answer in ("Yes.", "There are two red cups.", "In the top left corner.", "3"):
        row = tokenize(vlm.tokenizer, (("What is there?", answer),), 0, PATCHES)
        scored = encode_answer(vlm, encode_prefix(vlm, Prefix((pictures[0],), "What is there?")), answer)
        assert row.ids == scored.ids
        assert [label != IGNORED for label in row.labels] == [place >= scored.start for place in range(len(row.ids))]


def test_the_lab_speaks_in_known_tokens(vlm: VLM) -> None:
    """Any text can be encoded and comes back; this tokenizer is the tiny one."""
    for text in ("A red cup.", "Zwei Tassen \u2013 caf\u00e9 \u2603", "  two  spaces"):
        ids = vlm.tokenizer.encode(text, add_special_tokens=False)
        assert vlm.tokenizer.decode(ids) == text
    assert len(vlm.tokenizer) == TINY.vocabulary


def test_pixels_are_normalized_as_by_the_image_processor(vlm: VLM) -> None:
    picture = render(sample_scene(WorldConfig(), "validation", 0))
    ours = normalize(np.array(picture)[None])
    theirs = vlm.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_features_are_those_that_the_model_takes_from_its_tower(vlm: VLM) -> None:
    some = list(scenes(WorldConfig(), "validation", 3))
    pixels = normalize(np.stack([np.asarray(render(scene)) for scene in some]))
    model = vlm.model
    with torch.no_grad():
        ours = model.model.multi_modal_projector(patch_features(model.model.vision_tower, pixels))
        theirs = torch.stack(list(model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output))
        rounded = encode_pictures(model, np.stack([np.asarray(render(scene)) for scene in some]))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert rounded.shape == (3, PATCHES, TINY.width) and rounded.dtype == torch.bfloat16


def test_the_loss_is_that_of_transformers(vlm: VLM) -> None:
    """A mixed batch: cross-entropy over all answer tokens together, up to bfloat16."""
    some = conversations(6)
    rows = [tokenize(vlm.tokenizer, row, picture, PATCHES) for row, _, picture in some]
    features = encode_pictures(vlm.model, np.stack([np.asarray(render(scene)) for _, scene, _ in some]))
    with torch.no_grad():
        ours = next_token_loss(vlm.model, rows, features, vlm.tokenizer.pad_token_id)
        total, tokens = 0.0, 0
        for row, (_, scene, picture) in zip(rows, some, strict=True):
            pixels = None if picture is None else normalize(np.array(render(scene))[None])
            labels = torch.tensor([row.labels])
            out = vlm.model(input_ids=torch.tensor([row.ids]), pixel_values=pixels, labels=labels)
            count = int((labels != IGNORED).sum())
            total, tokens = total + float(out.loss) * count, tokens + count
    assert float(ours) == pytest.approx(total / tokens, rel=5e-3)


def test_rows_are_padded_on_the_right_without_labels() -> None:
    ids, labels = collate([TokenRow((1, 5, 6), (IGNORED, 5, 6), None), TokenRow((1,), (IGNORED,), 0)], pad=9)
    assert ids.tolist() == [[1, 5, 6], [1, 9, 9]]
    assert labels.tolist() == [[IGNORED, 5, 6], [IGNORED, IGNORED, IGNORED]]


# --- the parts --------------------------------------------------------------------------------------------------------


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    """40 steps: 2 of warm-up (1/2, then 1), then a cosine down to 2 % of the peak, group by group."""
    matrix, vector = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    adam, muon = make_optimizers([("model.layers.0.m", matrix), ("v", vector)], 0.1, 0.05)
    assert [group["weight_decay"] for group in (*adam.param_groups, *muon.param_groups)] == [0.0, 0.05]
    assert adam.param_groups[0]["params"] == [vector] and muon.param_groups[0]["params"] == [matrix]
    rates = []
    for _ in schedule_steps((adam, muon), 40):
        assert adam.param_groups[0]["lr"] == muon.param_groups[0]["lr"]
        rates.append(adam.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.05)
    assert rates[20] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5))
    assert rates[39] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * 39 / 40))))
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[39] > 0.002


def test_a_step_is_clipped_to_norm_one() -> None:
    """Plain SGD shows it: a gradient of length 50 moves the parameter by 1 in its direction."""
    moved = torch.nn.Parameter(torch.zeros(2))
    take_step([torch.optim.SGD([moved], lr=1.0)], (moved * torch.tensor([30.0, 40.0])).sum())
    torch.testing.assert_close(moved.detach(), torch.tensor([-0.6, -0.8]), rtol=1e-4, atol=0)


def test_alignment_puts_patches_where_their_words_are(vlm: VLM) -> None:
    """After 300 steps on 24 scenes most patches that show something say its name or color first."""
    recipe = TINY.model_copy(update={"align_steps": 300})
    model = copy.deepcopy(vlm.model)
    torch.manual_seed(0)
    views = Views(recipe.world, "train", recipe.train_scenes, recipe.patch_size, workers=1)
    features = (
        4 * torch.nn.functional.one_hot(torch.from_numpy(views.kinds), TINY.width).bfloat16()
    )  # a tower that sees
    losses = [loss for _, loss in align(model, vlm.tokenizer, views, features, recipe)]
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) - 0.5  # untrained embeddings are too small for more
    projected = model.model.multi_modal_projector(features.float())
    sizes = [value.square().mean().sqrt().item() for value in (projected, model.get_input_embeddings().weight)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
    predicted = model.lm_head(model.model.language_model.norm(projected)).argmax(-1)
    right = [
        predicted[scene, patch].item()
        in {vlm.tokenizer.encode(f" {name}", add_special_tokens=False)[0] for name in names}
        for scene, patch in zip(*np.nonzero(views.kinds), strict=True)
        for names in [spoken_names(KINDS[views.kinds[scene, patch] - 1])]
    ]
    assert np.mean(right) > 0.8


def test_what_a_patch_shows(base: Path) -> None:
    """The dense labels of a scene: each kind of it on some patch, a center in the patch of each object's center."""
    from sightline.lab.recipe.perception import _view

    for index in range(6):
        scene = sample_scene(WorldConfig(), "perception", index)
        pixels, kinds, _, centers = _view((WorldConfig(), "perception", index, 12))
        assert pixels.shape == (96, 96, 3) and np.array_equal(pixels, np.asarray(render(scene)))
        assert {KINDS[kind - 1] for kind in kinds if kind} <= scene.kinds
        wanted = {int(y // 12) * 8 + int(x // 12) for x, y in (item.center for item in scene.objects)}
        assert set(np.flatnonzero(centers)) == wanted
        for item in scene.objects:
            left, top, right, bottom = item.box
            inside = {r * 8 + c for r in range(top // 12, -(-bottom // 12)) for c in range(left // 12, -(-right // 12))}
            assert KINDS.index(item.kind) + 1 in {int(kinds[patch]) for patch in inside & set(range(64))}


@pytest.mark.slow
def test_the_card_is_measured_from_the_weights(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of the card with its interval and n; what they should be is said in `test_base`."""
    monkeypatch.setattr(card, "_PROBE_SCENES", 40)
    monkeypatch.setattr(card, "_CORPUS_SCENES", 40)
    shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("work"))
    numbers = card.measure_base(tmp_path / "base", tmp_path / "card", 10)
    kept = json.loads((tmp_path / "card/card.json").read_text())
    assert kept["scenes"] == 10 and set(kept["numbers"]) == set(numbers)
    assert set(numbers) == {
        *(f"{name}{suffix}" for name in card.BENCHMARKS for suffix in ("", "-counter")),
        "probe-test",
        "probe-counter-test",
        "blank",
        "hidden",
    }
    for part, rows in numbers.items():
        for name, saved in rows.items():
            assert f"| {part} | {name} | " in (tmp_path / "card/README.md").read_text()
            assert saved.n > 0 or saved.value is None
            assert saved.value is None or saved.ci95 is None or saved.ci95[0] <= saved.value <= saved.ci95[1]
    found = numbers["probe-test"]["recall"]
    assert found.value is not None and 0 <= found.value <= 1 and found.n == 10
    assert all(len(texts) == 4 for texts in kept["examples"].values())


def test_the_pictures_of_text_only_rows_are_never_shown() -> None:
    assert RecipeConfig().train_scenes < recipe_module._PRIOR_START


def test_batches_hold_rows_of_about_one_length_and_each_row_once() -> None:
    rng = np.random.default_rng(0)
    lengths = iter(rng.integers(1, 100, size=64).tolist())
    drawn: list[int] = []

    def draw() -> TokenRow:
        drawn.append(next(lengths))
        return TokenRow((1,) * drawn[-1], (1,) * drawn[-1], None)

    batches = length_batches(draw, 8, rng)
    by_batch = [[len(row.ids) for row in next(batches)] for _ in range(8)]
    assert sorted(itertools.chain(*by_batch)) == sorted(drawn)
    assert np.mean([max(batch) - min(batch) for batch in by_batch]) < 40, "99 if rows were mixed"


def test_a_patch_is_put_where_its_words_are(vlm: VLM) -> None:
    """The middle patch of the bottom row says "bottom" and "middle", each half."""
    table = _places(vlm.tokenizer, 64)
    where = {word: vlm.tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in ("bottom", "middle")}
    assert {word: float(table[7 * 8 + 3, token]) for word, token in where.items()} == {"bottom": 0.5, "middle": 0.5}
    assert torch.equal(table.sum(-1), torch.ones(64))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has what it asks for")
def test_a_device_that_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device is cuda, but torch finds no GPU; use cpu or auto"):
        train_base(TINY, tmp_path / "base", Console(quiet=True), "cuda")
    assert not (tmp_path / "base").exists()


@pytest.mark.gpu
def test_the_recipe_runs_on_a_gpu(tmp_path: Path) -> None:
    train_base(TINY, tmp_path / "base", Console(quiet=True), "cuda")
    assert load_vlm(tmp_path / "base").model.dtype == torch.float32
