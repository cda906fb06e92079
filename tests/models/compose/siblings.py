"""Two tiny models that share a language model, one for images and one for audio, with fully trained adapters."""

import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from tests.models.tiny import TEMPLATE, train_tokenizer

SOUND_SIDE, SOUND_PATCH = 16, 8
SOUND_TOKENS = (SOUND_SIDE // SOUND_PATCH) ** 2


def save_ear(directory: Path, eye: Path, seed: int = 7) -> Path:
    """Save a model with the language model of `eye` and another encoder: smaller images, narrower, one layer."""
    known = LlavaForConditionalGeneration.from_pretrained(eye)
    config = copy.deepcopy(known.config)
    config.vision_config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SOUND_SIDE,
        patch_size=SOUND_PATCH,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(known.model.language_model.state_dict())
    model.lm_head.load_state_dict(known.lm_head.state_dict())
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.mul_(20)
    model.generation_config.eos_token_id = known.generation_config.eos_token_id
    model.save_pretrained(directory)
    side = {"height": SOUND_SIDE, "width": SOUND_SIDE}
    LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SOUND_SIDE}, crop_size=side),
        tokenizer=train_tokenizer(),
        patch_size=SOUND_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(directory)
    return directory


def save_sounds(directory: Path, count: int = 3) -> list[Path]:
    """Gray noise."""
    rng, paths = np.random.default_rng(1), []
    for index in range(count):
        paths.append(directory / f"sound-{index}.png")
        pixels = rng.integers(0, 256, size=(SOUND_SIDE, SOUND_SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    return paths


def save_moved(model: Path, directory: Path, seed: int, settings: LoraSettings, size: float = 0.1) -> Path:
    """An adapter for `model` whose every weight is random."""
    vlm = add_lora(load_vlm(model), settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in vlm.model.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=generator))
    save_adapter(vlm, directory)
    return directory
