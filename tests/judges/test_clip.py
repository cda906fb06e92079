"""The dual encoder as a judge: parity with Transformers' own scores, sentences, limits, the cache, learned colors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import processors
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from sightline.errors import InputError
from sightline.judges.clip import ClipJudgeConfig
from sightline.judges.judge import ComparisonInput, Judge, Verdict, prefer
from sightline.lab.drawing import render
from sightline.lab.words import COLORS, WorldConfig
from sightline.lab.world import sample_scene
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput, Prefix
from tests.models.families.tokenizers import train_tokenizer
from tests.models.tiny import save_tiny_llava

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION: dict[str, Any] = {**SIZE, "image_size": 32, "patch_size": 8}
LIMIT = 24


def text_part(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**SIZE, "vocab_size": len(tokenizer), "max_position_embeddings": LIMIT, **ids}


def save_clip(directory: Path, model: CLIPModel | None = None) -> Path:
    """A CLIP whose text ends with the token that is pooled, as the real one's does."""
    tokenizer = train_tokenizer(["<pad>", "<s>", "</s>"], pad="<pad>", bos="<s>", eos="</s>")
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=ends
    )
    tokenizer.model_max_length = LIMIT
    if model is None:
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text_part(tokenizer), vision_config=VISION, projection_dim=16)
        model = CLIPModel(config)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model.save_pretrained(directory)
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(directory)  # type: ignore[no-untyped-call]
    return directory


def save_siglip(directory: Path) -> Path:
    """A SigLIP, whose tokenizer gives no mask and whose last position is pooled, padding or not."""
    tokenizer = train_tokenizer(["<pad>", "</s>"], pad="<pad>", eos="</s>")
    end = [("</s>", tokenizer.convert_tokens_to_ids("</s>"))]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    tokenizer.model_input_names = ["input_ids"]
    tokenizer.model_max_length = LIMIT
    torch.manual_seed(0)
    text = {**text_part(tokenizer), "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    model.save_pretrained(directory)
    pictures = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    SiglipProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(directory)  # type: ignore[no-untyped-call]
    return directory


SAVERS: dict[str, Callable[[Path], Path]] = {"clip": save_clip, "siglip": save_siglip}


@pytest.fixture(scope="module", params=SAVERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip-alone"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        render(sample_scene(WorldConfig(), "preference", number)).save(path)
    return paths


def open_judge(directory: Path, **settings: Any) -> Judge:
    config = ClipJudgeConfig.model_validate({"name": "clip", "model": directory, **settings})
    return config.open(RunContext(Path(), Path(), 0))


def make_input(answer: str, *images: Path) -> JudgeInput:
    return JudgeInput(Prefix(images, "What is it?"), answer)


def plain(directory: Path, image: Path, sentence: str) -> float:
    """By Transformers' own forward, as its documentation uses it."""
    model, processor = AutoModel.from_pretrained(directory), AutoProcessor.from_pretrained(directory)  # type: ignore[no-untyped-call]
    pad = {"padding": "max_length", "max_length": LIMIT} if "siglip" in type(model).__name__.lower() else {}
    with Image.open(image) as picture, torch.no_grad():
        inputs = processor(text=[sentence], images=picture.convert("RGB"), return_tensors="pt", **pad)
        output = model.eval()(**inputs)
    return 100 * max(0.0, torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds).item())


def test_scores_are_transformers_own(encoder: Path, pictures: list[Path], own_cache: Path) -> None:
    sentences = ["A red cup.", "There is a cow in front of the barn.", "No."]
    every = [(image, sentence) for image in pictures for sentence in sentences]
    verdicts = open_judge(encoder, batch_size=4).score([make_input(sentence, image) for image, sentence in every])
    expected = [plain(encoder, image, sentence) for image, sentence in every]
    assert [verdict.score for verdict in verdicts] == pytest.approx(expected, abs=2e-4)
    assert len({round(score, 2) for score in expected}) > 3  # else nothing would be told apart


def test_sentences_and_pictures_are_averaged(encoder: Path, pictures: list[Path], own_cache: Path) -> None:
    judge = open_judge(encoder)
    one, two = "A red cup.", "A cow."
    (both,) = judge.score([make_input(f"{one}  {two}\n", pictures[0], pictures[1])])
    singles = [plain(encoder, image, sentence) for image in pictures[:2] for sentence in (one, two)]
    assert both.score == pytest.approx(sum(singles) / 4, abs=2e-4)


def test_neighbors_and_batches_change_nothing(encoder: Path, pictures: list[Path], own_cache: Path) -> None:
    items = [make_input(f"A {'very ' * number}red cup. No.", *pictures[: number + 1]) for number in range(5)]
    whole = open_judge(encoder, batch_size=64).score(items)
    alone = [open_judge(encoder, batch_size=1).score([one])[0] for one in reversed(items)][::-1]
    assert whole == alone and len({verdict.score for verdict in whole}) == 5


def test_what_cannot_be_scored_says_why(encoder: Path, pictures: list[Path], own_cache: Path) -> None:
    long = "A red cup and a blue plate and " * 10
    items = [
        make_input("A red cup."),
        make_input(" \n", pictures[0]),
        make_input(f"No. {long}.", pictures[0]),
        make_input("A red cup.", pictures[0]),
    ]
    verdicts = open_judge(encoder).score(items)
    assert [verdict.score for verdict in verdicts[:3]] == [None] * 3
    notes = [verdict.note for verdict in verdicts]
    assert notes[:2] == ["no picture", "empty answer"] and notes[2].endswith(f"the text encoder takes {LIMIT}")
    assert verdicts[3] == open_judge(encoder).score(items[3:])[0] and verdicts[3].score is not None


def test_the_longest_sentence_that_fits_is_scored_and_one_more_token_is_not(
    encoder: Path, pictures: list[Path], own_cache: Path
) -> None:
    tokenizer = AutoProcessor.from_pretrained(encoder).tokenizer  # type: ignore[no-untyped-call]
    texts = {len(tokenizer(text)["input_ids"]): text for text in ("cup" + " cup" * number for number in range(LIMIT))}
    judge = open_judge(encoder)
    assert judge.score([make_input(texts[LIMIT], pictures[0])])[0].score is not None
    assert judge.score([make_input(texts[LIMIT + 1], pictures[0])])[0].score is None


def test_pictures_are_looked_at_once(
    clip_dir: Path, pictures: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    plain_features = CLIPModel.get_image_features

    def counted(self: CLIPModel, pixel_values: torch.Tensor, **more: Any) -> Any:
        looked.append(len(pixel_values))
        return plain_features(self, pixel_values=pixel_values, **more)

    monkeypatch.setattr(CLIPModel, "get_image_features", counted)
    items = [make_input("A red cup.", image) for image in (*pictures, *pictures)]
    first = open_judge(clip_dir, batch_size=2).score(items)
    assert looked == [2, 2, 1]
    assert open_judge(clip_dir).score(items) == first and looked == [2, 2, 1]
    (entry, *_) = sorted(own_cache.rglob("*.safetensors"))
    entry.write_bytes(entry.read_bytes()[:-5])
    assert open_judge(clip_dir).score(items) == first and looked == [2, 2, 1, 1]


def test_another_model_does_not_get_this_ones_pictures(pictures: list[Path], tmp_path: Path, own_cache: Path) -> None:
    one = save_clip(tmp_path / "one")
    model = CLIPModel.from_pretrained(one)
    with torch.no_grad():
        model.visual_projection.weight.mul_(-1)
    two = save_clip(tmp_path / "two", model)
    judges = [open_judge(directory) for directory in (one, two)]
    items = [make_input("A red cup.", image) for image in pictures]
    scores = [[verdict.score for verdict in judge.score(items)] for judge in judges]
    assert all(min(pair) == 0 < max(pair) for pair in zip(*scores, strict=True))  # the sign of every cosine turned
    assert judges[0].identity != judges[1].identity == open_judge(two, batch_size=3).identity


def test_what_is_no_dual_encoder_is_refused(tmp_path: Path, clip_dir: Path) -> None:
    with pytest.raises(InputError, match=r"none is not a model directory: it has no config\.json"):
        open_judge(tmp_path / "none")
    with pytest.raises(InputError, match="is not a dual encoder"):
        open_judge(save_tiny_llava(tmp_path / "llava"))
    bare = tmp_path / "bare"
    CLIPModel.from_pretrained(clip_dir).save_pretrained(bare)
    with pytest.raises(InputError, match=r"bare (cannot be opened|is not a dual encoder)"):
        open_judge(bare)


def lessons(count: int) -> tuple[list[Image.Image], list[str]]:
    """Scenes of the lab with all objects in one color, and that color."""
    images, colors = [], []
    for index in range(count):
        scene, color = sample_scene(WorldConfig(), "perception", index), tuple(COLORS)[index % len(COLORS)]
        images.append(render(replace(scene, objects=tuple(replace(thing, color=color) for thing in scene.objects))))
        colors.append(color)
    return images, colors


@pytest.mark.slow
def test_a_trained_encoder_prefers_the_color_that_is_there(tmp_path: Path, own_cache: Path) -> None:
    directory = save_clip(tmp_path / "clip")
    model, processor = CLIPModel.from_pretrained(directory), AutoProcessor.from_pretrained(directory)  # type: ignore[no-untyped-call]
    images, colors = lessons(160)
    names = sorted(set(colors))
    pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    texts = processor.tokenizer([f"It is {name}." for name in names], padding=True, return_tensors="pt")
    targets = torch.tensor([names.index(color) for color in colors])
    seen, fresh = slice(0, 120), range(120, 160)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        output = model(pixel_values=pixels[seen], **texts)
        loss = torch.nn.functional.cross_entropy(output.logits_per_image, targets[seen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_clip(directory, model)
    paths = []
    for place in fresh:
        paths.append(tmp_path / f"{place}.png")
        images[place].save(paths[-1])
    wrong = [names[(names.index(colors[place]) + 3) % len(names)] for place in fresh]
    pairs = [
        ComparisonInput(make_input(f"It is {colors[place]}.", path), make_input(f"It is {other}.", path))
        for place, path, other in zip(fresh, paths, wrong, strict=True)
    ]
    found = prefer(open_judge(directory), pairs)
    assert len(names) == len(COLORS) and found.count("first") >= 34, (found.count("first"), loss.item())


def test_verdicts_are_plain_numbers(clip_dir: Path, pictures: list[Path], own_cache: Path) -> None:
    (verdict,) = open_judge(clip_dir).score([make_input("A red cup.", pictures[0])])
    assert verdict == Verdict(verdict.score) and isinstance(verdict.score, float)
