"""The untrained LLaVA around the tower, and next-token training on `TokenRow`s: the prior and instruction tuning.

They differ in what is trained and whether pictures are shown. The tower is frozen from here on, so each scene's
features are computed once.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from sightline.lab.recipe.batches import IGNORED, Batch, collate
from sightline.lab.recipe.config import RecipeConfig
from sightline.lab.recipe.optimize import fast_format, make_optimizers, scheduled, take_step
from sightline.lab.recipe.perception import normalized, patch_features, vision_config


def make_llava(
    recipe: RecipeConfig, tokenizer: PreTrainedTokenizerFast, tower: CLIPVisionModel
) -> LlavaForConditionalGeneration:
    """An untrained LLaVA around the trained tower."""
    torch.manual_seed(recipe.seed + 1)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.width * 11 // 4,
        num_hidden_layers=recipe.language_layers,
        num_attention_heads=recipe.width // 64,
        num_key_value_heads=recipe.width // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision_config(recipe),
        text_config=text,
        image_token_index=int(tokenizer.convert_tokens_to_ids("<image>")),  # type: ignore[arg-type]
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(96 // recipe.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # see perception: faster than SDPA here, and training only
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


@torch.no_grad()
def features_of(model: LlavaForConditionalGeneration, pixels: np.ndarray) -> Tensor:
    """What the frozen tower sees of each picture (uint8 [scene, height, width, 3]), bfloat16 [scene, patch, width]."""
    chunks = []
    for start in range(0, len(pixels), 64):
        some = normalized(pixels[start : start + 64], model.device)
        with fast_format(model.device):
            chunks.append(patch_features(model.model.vision_tower, some).bfloat16())
    return torch.cat(chunks)


def next_token_loss(model: LlavaForConditionalGeneration, batch: Batch, features: Tensor | None, pad: int) -> Tensor:
    """Mean cross-entropy over the assistant's tokens; the head runs only where there is a label."""
    ids, labels = (each.to(model.device) for each in collate(batch, pad))
    with fast_format(model.device):
        embedded = model.get_input_embeddings()(ids)
        if features is not None:
            shown = torch.tensor([row.picture for row in batch if row.picture is not None], dtype=torch.long)
            projected = model.model.multi_modal_projector(features[shown].to(embedded.dtype))
            where = (ids == model.config.image_token_id).unsqueeze(-1)
            embedded = embedded.to(projected.dtype).masked_scatter(where, projected)
        hidden = model.model.language_model(inputs_embeds=embedded).last_hidden_state
        asked = labels[:, 1:] != IGNORED
        logits = model.lm_head(hidden[:, :-1][asked])
    return F.cross_entropy(logits.float(), labels[:, 1:][asked])


def train(
    model: LlavaForConditionalGeneration,
    trained: Sequence[nn.Module],
    steps: int,
    batches: Iterator[Batch],
    features: Tensor | None,
    recipe: RecipeConfig,
    rate: float,
) -> Iterator[tuple[int, float]]:
    """Train the parameters of `trained` on `steps` of the batches; yields (step, loss)."""
    model.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    pad = model.config.get_text_config().pad_token_id
    optimizers = make_optimizers(named, rate, recipe.weight_decay)
    for step in scheduled(optimizers, steps):
        loss = next_token_loss(model, next(batches), features, pad)
        take_step(optimizers, loss)
        yield step, loss.item()
