"""Projector alignment: each patch's feature, put where the language model's words are.

LLaVA aligns by captions through the frozen language model. Here the truth of every patch is known, so the projector
learns it directly, in seconds: read through the model's own final norm and head, the projected patch says the words of
what it shows and of where it lies. The thought is that a question's word can then find its patch by likeness.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from sightline.lab.language import horizontal, vertical
from sightline.lab.recipe.config import RecipeConfig
from sightline.lab.recipe.optimize import fast_format, make_optimizers, scheduled, take_step
from sightline.lab.recipe.perception import COLOR_NAMES, Views
from sightline.lab.vocabulary import KINDS
from sightline.lab.words import names_of
from sightline.lab.world import IMAGE_SIZE

_COLOR_SHARE, _PLACE_SHARE = 0.25, 0.25  # of what a patch should say; the rest is its kind
_BACKGROUND_WEIGHT = 0.3  # three of four patches show nothing
_RATE = 2e-3


def align(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    views: Views,
    features: Tensor,
    recipe: RecipeConfig,
) -> Iterator[tuple[int, float]]:
    """Train the projector in place on `features` [scene, patch, width] of the scenes of `views`; yields (step, loss).

    At the end the projector is scaled so that a projected patch is as large as a word's embedding.
    """
    projector = model.model.multi_modal_projector
    model.requires_grad_(False)
    projector.requires_grad_(True)
    device = model.device
    words = words_of(tokenizer, tuple(names_of(kind) for kind in KINDS)) * (1 - _COLOR_SHARE - _PLACE_SHARE)
    colors = words_of(tokenizer, tuple((color,) for color in COLOR_NAMES)) * _COLOR_SHARE
    places = _places(tokenizer, model.config.image_seq_length) * _PLACE_SHARE
    final_norm = model.model.language_model.get_submodule("norm")
    optimizers = make_optimizers(projector.named_parameters(), _RATE, recipe.weight_decay)
    rng = np.random.default_rng([recipe.seed, 20])
    for step in scheduled(optimizers, recipe.align_steps):
        rows = rng.integers(len(features), size=recipe.batch_size)
        kinds = torch.from_numpy(views.kinds[rows]).flatten()
        wanted = words[kinds] + colors[torch.from_numpy(views.colors[rows]).flatten()] + places.repeat(len(rows), 1)
        shown = features[torch.from_numpy(rows)].float()  # autocast rounds them again where it is on
        with fast_format(device):
            projected = projector(shown)
            logits = model.lm_head(final_norm(projected))
        each = F.cross_entropy(logits.float().flatten(0, 1), wanted.to(device), reduction="none")
        weight = torch.where(kinds == 0, _BACKGROUND_WEIGHT, 1.0).to(device)
        loss = (each * weight).sum() / weight.sum()
        take_step(optimizers, loss)
        yield step, loss.item()
    rescale(model, features[:256])


def words_of(tokenizer: PreTrainedTokenizerFast, names: tuple[tuple[str, ...], ...]) -> Tensor:
    """[1 + len(names), vocabulary]: the first tokens of each one's names, evenly; nothing says the end token."""
    table = torch.zeros(1 + len(names), len(tokenizer))
    table[0, tokenizer.eos_token_id] = 1
    for number, synonyms in enumerate(names, start=1):
        for name in synonyms:
            table[number, tokenizer.encode(f" {name}", add_special_tokens=False)[0]] += 1 / len(synonyms)
    return table


def _places(tokenizer: PreTrainedTokenizerFast, patches: int) -> Tensor:
    """[patches, vocabulary]: the words for the thirds of the picture in which the middle of each patch lies."""
    grid = math.isqrt(patches)
    middles = [(number + 0.5) * IMAGE_SIZE / grid for number in range(grid)]
    table = torch.zeros(patches, len(tokenizer))
    for patch in range(patches):
        where = (middles[patch % grid], middles[patch // grid])
        for word in (horizontal(where), vertical(where)):
            table[patch, tokenizer.encode(f" {word}", add_special_tokens=False)[0]] += 0.5
    return table


@torch.no_grad()
def rescale(model: LlavaForConditionalGeneration, features: Tensor) -> None:
    """Make projected features as large as words' embeddings.

    The final norm hides how large a vector is; the first layer's residual stream does not.
    """
    projector = model.model.multi_modal_projector
    projected: Tensor = projector(features.float())
    size = projected.square().mean().sqrt()
    scale = model.lm_head.weight.square().mean().sqrt() / size  # the head is tied to the embeddings
    projector.linear_2.weight.mul_(scale)
    projector.linear_2.bias.mul_(scale)
