"""The sound model: the base's language model with a sound encoder and projector trained from a seed.

As in `recipe.perception`, the content of every patch is known, so encoder and projector are trained on it directly:
through the language model's final norm and head, a patch must predict the words of its sounds. The language model is
frozen; `sightline.train` trains its adapter.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sightline.config import Config, Seed
from sightline.data.terminal import Progress
from sightline.lab import BASE
from sightline.lab.recipe.optimize import schedule_steps, take_step
from sightline.lab.recipe.perception import patch_features, rescale, target_words
from sightline.lab.sound.soundscape import AUDIBLE, PATCH, SIDE, SoundSource, render_with_sources
from sightline.lab.words import WorldConfig, spoken_names
from sightline.models.loading import no_progress_bars
from sightline.records.manifest import Stage


class EarConfig(Config):
    """The sound encoder, from scratch: a ViT over spectrograms, and the projector into the base's language model."""

    seed: Seed = Field(default=0, description="seed of the encoder's initialization and data")
    width: int = Field(default=128, description="width of the encoder")
    layers: int = Field(default=2, description="layers of the encoder")
    sounds: int = Field(default=6000, description="unbiased spectrograms, drawn once")
    steps: int = Field(default=500, description="training steps")
    batch_size: int = Field(default=48, description="spectrograms per training step")
    learning_rate: float = Field(default=2e-3, description="peak learning rate")
    weight_decay: float = Field(default=0.05, description="weight decay of AdamW")
    sources: int = Field(default=4, ge=1, description="at most so many sources at a time")


class SoundStudyConfig(Config):
    """`sightline lab compose`. Rows are those of one kind of media; the joint model is trained on both kinds' rows."""

    world: WorldConfig = Field(default=WorldConfig(), description="the world of scenes and soundscapes")
    ear: EarConfig = Field(default=EarConfig(), description="the sound encoder and its training")
    rows: int = Field(default=800, ge=1, description="training rows of each kind of media")
    scenes: int = Field(default=200, ge=2, description="test soundscapes, five questions each")
    validation: int = Field(default=20, ge=1, description="soundscapes of the search, five questions each")
    values: tuple[float, ...] = Field(
        default=(0.5, 0.75, 1.0), description="candidate weights of each adapter in the search"
    )
    density: float = Field(default=0.5, gt=0, lt=1, description="density of TIES")
    batch_size: int = Field(default=64, description="questions answered at a time")


_SILENT_WEIGHT = 0.3  # weight of a silent patch
_MEAN, _STD = 0.25, 0.3  # approximate, of the spectrograms' pixels


def make_ear(config: EarConfig, out: Path, progress: Progress | None = None) -> Path:
    """The stage `lab ear`: write a LLaVA directory whose pictures are spectrograms; returns `out`."""
    stage = Stage.open(out, "lab ear", config, {"base": BASE}, config.seed)
    if stage.done:
        return out
    processor = AutoProcessor.from_pretrained(BASE)  # type: ignore[no-untyped-call]
    model = untrained_model(config)
    losses = [loss for _, loss in train_ear(config, model, processor.tokenizer, progress)]
    torch.nn.Module.to(model, torch.bfloat16)  # as the base, whose weights are not changed by it
    with no_progress_bars():
        model.save_pretrained(out)
        make_processor(processor).save_pretrained(out)
    stage.finish(counts={"sounds": config.sounds, "steps": config.steps}, numbers={"last_loss": losses[-1]})
    return out


def untrained_model(config: EarConfig) -> LlavaForConditionalGeneration:
    """The base's language model, float32, with a new encoder and projector."""
    base = LlavaForConditionalGeneration.from_pretrained(BASE, dtype=torch.float32)
    llava_config = copy.deepcopy(base.config)
    llava_config.vision_config = CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.width * 3,
        num_hidden_layers=config.layers,
        num_attention_heads=config.width // 64,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=config.width,
        hidden_act="relu",
    )
    llava_config.image_seq_length = (SIDE // PATCH) ** 2
    torch.manual_seed(config.seed)
    model = LlavaForConditionalGeneration(llava_config)
    model.model.language_model.load_state_dict(base.model.language_model.state_dict())
    model.tie_weights()
    model.generation_config = base.generation_config
    return model


def make_processor(known: LlavaProcessor) -> LlavaProcessor:
    """The base's processor with an image processor for spectrograms."""
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(
        do_resize=False, size=side, do_center_crop=False, crop_size=side, image_mean=[_MEAN] * 3, image_std=[_STD] * 3
    )
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=known.tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=known.chat_template,
        num_additional_image_tokens=1,
    )


def normalize(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [batch, height, width] -> float32 [batch, 3, height, width], as the image processor gives it."""
    gray = (torch.from_numpy(pixels).float() / 255 - _MEAN) / _STD
    return gray[:, None].expand(-1, 3, -1, -1).contiguous()


def train_ear(
    config: EarConfig,
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress | None = None,
) -> Iterator[tuple[int, float]]:
    """Train encoder and projector in place; yields (step, loss).

    At the end the projector is scaled so that a projected patch is as large as a word's embedding.
    """
    pixels, sounding = _views(config)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    tower.set_attn_implementation("eager")
    model.requires_grad_(False)
    weights = [*tower.parameters(), *projector.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    words = target_words(tokenizer, tuple(spoken_names(kind) for kind in AUDIBLE))
    final_norm = model.model.language_model.get_submodule("norm")
    # Unlike the base, no Muon: its bfloat16 products take longer than the rest of so small a model.
    optimizer = torch.optim.AdamW(weights, config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay)
    rng = np.random.default_rng([config.seed, 31])
    for step in schedule_steps([optimizer], config.steps):
        rows = rng.integers(len(pixels), size=config.batch_size)
        there = torch.from_numpy(sounding[rows]).flatten(0, 1).float()
        count = there.sum(-1, keepdim=True)
        wanted = torch.where(count > 0, there @ words[1:] / count.clamp(min=1), words[0])
        logits = model.lm_head(final_norm(projector(patch_features(tower, normalize(pixels[rows])))))
        each = F.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
        weight = torch.where(count[:, 0] > 0, 1.0, _SILENT_WEIGHT)
        loss = (each * weight).sum() / weight.sum()
        take_step([optimizer], loss)
        if progress is not None:
            progress(step + 1, config.steps)
        yield step, loss.item()
    with torch.no_grad():
        rescale(model, patch_features(tower, normalize(pixels[:256])))


def _views(config: EarConfig) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Spectrograms of unbiased sources [sound, bin, frame], and the kinds in each patch [sound, patch, kind]."""
    pixels = np.empty((config.sounds, SIDE, SIDE), np.uint8)
    sounding = np.zeros((config.sounds, (SIDE // PATCH) ** 2, len(AUDIBLE)), np.bool_)
    for number in range(config.sounds):
        rng = np.random.default_rng([config.seed, 30, number])
        kinds = rng.permutation(len(AUDIBLE))[: int(rng.integers(0, config.sources + 1))]
        sources = [SoundSource(AUDIBLE[kind], int(rng.integers(2**31))) for kind in kinds]
        image, cells = render_with_sources(sources, int(rng.integers(2**31)))
        pixels[number] = np.asarray(image)
        sounding[number][:, kinds] = cells
    return pixels, sounding
