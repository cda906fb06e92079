"""The vision tower: a small CLIP ViT trained on unbiased scenes to predict the content of each patch.

Dense supervision (kind, color, object centers and place of each patch) is far cheaper than captions, and on unbiased
scenes the tower cannot learn that cups come with plates. The heads are discarded; `joint` is the next stage.
"""

import math
from collections.abc import Iterator
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from sightline.lab.drawing import render_with_owners
from sightline.lab.language import horizontal, vertical
from sightline.lab.recipe.config import RecipeConfig
from sightline.lab.recipe.optimize import fast_format, make_optimizers, schedule_steps, take_step
from sightline.lab.words import COLORS, KINDS, WorldConfig, spoken_names
from sightline.lab.world import IMAGE_SIZE, sample_scene

#: Mean and standard deviation of the lab's pixels, used by the tower's training and by the image processor alike.
PIXEL_MEAN, PIXEL_STD = (0.67, 0.67, 0.64), (0.17, 0.16, 0.20)
COLOR_NAMES = tuple(COLORS)
_SCENES_A_WORKER = 500  # starting a process takes seconds
_LEAST_SHARE = 0.12  # smallest share of a patch's pixels for an object to count as shown
_KIND_CLASSES, _COLOR_CLASSES = len(KINDS) + 1, len(COLORS) + 1


class Views:
    """Rendered scenes with patch labels: pixels uint8 [scene, 96, 96, 3], kinds and colors [scene, patch].

    Kinds and colors count from 1; 0 is background.
    """

    def __init__(self, world: WorldConfig, split: str, count: int, patch_size: int, workers: int) -> None:
        grid = IMAGE_SIZE // patch_size
        self.pixels = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        self.kinds = np.zeros((count, grid * grid), np.int64)
        self.colors = np.zeros((count, grid * grid), np.int64)
        self.centers = np.zeros((count, grid * grid), np.float32)
        jobs = ((world, split, index, patch_size) for index in range(count))
        for row, view in enumerate(_render_views(jobs, min(workers, count // _SCENES_A_WORKER))):
            self.pixels[row], self.kinds[row], self.colors[row], self.centers[row] = view


def _render_views(jobs: Iterator[tuple[WorldConfig, str, int, int]], workers: int) -> Iterator[tuple[np.ndarray, ...]]:
    if workers < 2:
        yield from map(_view, jobs)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_view, jobs, chunksize=64)


def _view(job: tuple[WorldConfig, str, int, int]) -> tuple[np.ndarray, ...]:
    world, split, index, patch_size = job
    scene = sample_scene(world, split, index)
    image, owners = render_with_owners(scene)
    grid = IMAGE_SIZE // patch_size
    cells = owners.reshape(grid, patch_size, grid, patch_size).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
    share = np.stack([(cells == n + 1).mean(-1) for n in range(len(scene.objects))], axis=-1)  # [patch, object]
    owner = np.where(share.max(-1) >= _LEAST_SHARE, share.argmax(-1), -1)
    kind_of = np.array([KINDS.index(o.kind) + 1 for o in scene.objects] + [0])
    color_of = np.array([COLOR_NAMES.index(o.color) + 1 for o in scene.objects] + [0])
    centers = np.zeros(grid * grid, np.float32)
    for item in scene.objects:
        x, y = (min(grid - 1, int(v / patch_size)) for v in item.center)
        centers[y * grid + x] = 1
    return np.asarray(image), kind_of[owner], color_of[owner], centers


def normalize(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [batch, height, width, 3] -> float32 [batch, 3, height, width], as the image processor gives it."""
    mean, std = torch.tensor(PIXEL_MEAN, device=device), torch.tensor(PIXEL_STD, device=device)
    return ((torch.from_numpy(pixels).to(device).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def vision_config(recipe: RecipeConfig) -> CLIPVisionConfig:
    """The config of a standard CLIP vision transformer."""
    return CLIPVisionConfig(
        hidden_size=recipe.width,
        intermediate_size=recipe.width * 3,
        num_hidden_layers=recipe.vision_layers,
        num_attention_heads=recipe.width // 64,
        image_size=IMAGE_SIZE,
        patch_size=recipe.patch_size,
        projection_dim=recipe.width,
        hidden_act="relu",
    )


def patch_features(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """The tower's features for LLaVA: the last hidden state without the class token, [batch, patch, width]."""
    hidden: Tensor = tower(pixel_values=pixels).last_hidden_state
    return hidden[:, 1:]


def train_tower(recipe: RecipeConfig, views: Views, tower: CLIPVisionModel) -> Iterator[tuple[int, float]]:
    """Train `tower` in place; yields (step, loss) after each step."""
    device = tower.device
    tower.set_attn_implementation("eager")  # measured on CPU in bfloat16: 1.4 times the steps per second of SDPA
    grid = IMAGE_SIZE // recipe.patch_size
    head = nn.Linear(recipe.width, _KIND_CLASSES + _COLOR_CLASSES + 1 + 2 * grid).to(device)
    parameters = [*tower.named_parameters(), *head.named_parameters()]
    optimizers = make_optimizers(parameters, recipe.perception_rate, recipe.weight_decay)
    rng = np.random.default_rng([recipe.seed, 11])
    order = np.empty(0, np.int64)
    for step in schedule_steps(optimizers, recipe.perception_steps):
        if len(order) < recipe.perception_batch:
            order = rng.permutation(len(views.pixels))
        rows, order = order[: recipe.perception_batch], order[recipe.perception_batch :]
        loss = _dense_loss(tower, head, views, rows, flip=rng.random() < 0.5)
        take_step(optimizers, loss)
        yield step, loss.item()


def _dense_loss(tower: CLIPVisionModel, head: nn.Linear, views: Views, rows: np.ndarray, flip: bool) -> Tensor:
    device = tower.device
    pixels = normalize(views.pixels[rows], device)
    kinds, colors, centers = (torch.from_numpy(a[rows]).to(device) for a in (views.kinds, views.colors, views.centers))
    side = math.isqrt(kinds.shape[1])
    if flip:
        pixels = pixels.flip(-1)
        kinds, colors, centers = (
            t.view(len(rows), side, side).flip(-1).reshape(len(rows), -1) for t in (kinds, colors, centers)
        )
    with fast_format(device):
        features = patch_features(tower, pixels)
    parts = head(features.float()).split([_KIND_CLASSES, _COLOR_CLASSES, 1, side, side], dim=-1)
    kind, color, center, row, column = (part.flatten(0, 1) for part in parts)
    place = torch.arange(side * side, device=device).repeat(len(rows))
    return (
        F.cross_entropy(kind, kinds.flatten())
        + 0.3 * F.cross_entropy(color, colors.flatten())
        + 0.5 * F.binary_cross_entropy_with_logits(center.squeeze(-1), centers.flatten())
        # Without it the last layer would drop positions, and the language model could not locate objects.
        + 0.1 * (F.cross_entropy(row, place // side) + F.cross_entropy(column, place % side))
    )


_COLOR_SHARE, _PLACE_SHARE = 0.25, 0.25  # shares of a patch's target distribution; the rest is its kind
_BACKGROUND_WEIGHT = 0.3  # three of four patches are background
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
    words = target_words(tokenizer, tuple(spoken_names(kind) for kind in KINDS)) * (1 - _COLOR_SHARE - _PLACE_SHARE)
    colors = target_words(tokenizer, tuple((color,) for color in COLOR_NAMES)) * _COLOR_SHARE
    places = _places(tokenizer, model.config.image_seq_length) * _PLACE_SHARE
    final_norm = model.model.language_model.get_submodule("norm")
    optimizers = make_optimizers(projector.named_parameters(), _RATE, recipe.weight_decay)
    rng = np.random.default_rng([recipe.seed, 20])
    for step in schedule_steps(optimizers, recipe.align_steps):
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


def target_words(tokenizer: PreTrainedTokenizerFast, names: tuple[tuple[str, ...], ...]) -> Tensor:
    """[1 + len(names), vocabulary]: uniform over the first tokens of each entry's names; row 0 is the end token."""
    table = torch.zeros(1 + len(names), len(tokenizer))
    table[0, tokenizer.eos_token_id] = 1
    for number, synonyms in enumerate(names, start=1):
        for name in synonyms:
            table[number, tokenizer.encode(f" {name}", add_special_tokens=False)[0]] += 1 / len(synonyms)
    return table


def _places(tokenizer: PreTrainedTokenizerFast, patches: int) -> Tensor:
    """[patches, vocabulary]: the words for the thirds of the picture that hold each patch's center."""
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
    """Scale projected features to the size of word embeddings.

    The final norm removes a vector's size; the first layer's residual stream does not.
    """
    projector = model.model.multi_modal_projector
    projected: Tensor = projector(features.float())
    size = projected.square().mean().sqrt()
    scale = model.lm_head.weight.square().mean().sqrt() / size  # the head is tied to the embeddings
    projector.linear_2.weight.mul_(scale)
    projector.linear_2.bias.mul_(scale)
