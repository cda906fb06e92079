"""`sightline lab train-base`: all stages of the recipe in order, each saved so that a killed run resumes.

Stages: tower (perception), tokenizer, language prior (text alone), projector alignment, instruction tuning. The result
is an ordinary LLaVA checkpoint in bfloat16.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from sightline.errors import InputError
from sightline.lab.recipe.config import Phase, RecipeConfig
from sightline.lab.recipe.joint import (
    TokenRow,
    conversation,
    encode_pictures,
    length_batches,
    make_llava,
    make_processor,
    tokenize,
    train,
    train_tokenizer,
)
from sightline.lab.recipe.perception import Views, align, train_tower, vision_config
from sightline.lab.world import IMAGE_SIZE, Scene, sample_scene, scene_rng
from sightline.models.device import computes_bfloat16, resolve_device
from sightline.records import read_json, write_json

_PRIOR_START = 1_000_000  # first scene of the text-only rows; their pictures are never shown
_BLANKS = 64  # pictures of one uniform color


def train_base(recipe: RecipeConfig, out: Path, console: Console, device: str = "cpu") -> None:
    """Run the recipe into `out` on `device`; finished stages in `out/work` are reused.

    Raises:
        InputError: `out` holds another recipe's stages or other files, or the device does not exist.
    """
    device, work = resolve_device(device), out / "work"
    _claim(work / "recipe.json", recipe)
    torch.set_flush_denormal(True)  # subnormal numbers are many times slower on CPUs
    if not computes_bfloat16(device):
        console.print("this CPU has no bfloat16 instructions; computing in float32, which is slower")
    tower = _tower(recipe, work / "tower.safetensors", console, device)

    scenes = [sample_scene(recipe.world, "train", i) for i in range(recipe.train_scenes)]
    tokenizer = train_tokenizer(_texts(recipe, scenes[:4000]), recipe.vocabulary)
    model = make_llava(recipe, tokenizer, tower)
    nn.Module.to(model, device)
    _stage(work / "prior.safetensors", model, console, lambda: _train_prior(recipe, model, tokenizer, console))
    _train_joint(recipe, model, tokenizer, scenes, work, console)

    model.requires_grad_(True)
    nn.Module.to(model, "cpu", torch.bfloat16)
    model.train(False)
    model.save_pretrained(out)
    make_processor(recipe, tokenizer).save_pretrained(out)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")


def _claim(path: Path, recipe: RecipeConfig) -> None:
    """Save the recipe beside its stages; reject stages of another recipe."""
    wanted, out = recipe.model_dump(mode="json"), path.parents[1]
    if path.exists():
        found = read_json(path)
        other = next((key for key in wanted | found if wanted.get(key) != found.get(key)), None)
        if other is not None:
            raise InputError(
                f"output directory {out} holds another recipe ({other} there: {found.get(other)}, here: "
                f"{wanted.get(other)}); choose another --out or delete the directory"
            )
    elif out.exists() and (strange := [item.name for item in out.iterdir() if item.name != path.parent.name]):
        raise InputError(f"output directory {out} holds other files ({strange[0]!r}); choose another --out")
    write_json(path, wanted)


def _tower(recipe: RecipeConfig, path: Path, console: Console, device: str) -> CLIPVisionModel:
    torch.manual_seed(recipe.seed)
    tower = CLIPVisionModel(vision_config(recipe))
    nn.Module.to(tower, device)
    if path.exists():
        tower.load_state_dict(load_file(path))
        return tower
    console.print(f"rendering {recipe.perception_scenes} unbiased scenes")
    views = _views(recipe, "perception", recipe.perception_scenes)
    _follow("perception", recipe.perception_steps, train_tower(recipe, views, tower), console)
    _save(path, tower.state_dict())
    return tower


def _texts(recipe: RecipeConfig, scenes: Sequence[Scene]) -> Iterator[str]:
    for scene in scenes:
        rng = scene_rng(recipe.world, scene.split, scene.index, purpose=9)
        for described in (1.0, 0.0):
            for question, answer in conversation(rng, scene, recipe.noise, described):
                yield f"USER: {question} ASSISTANT: {answer}"


def _train_prior(
    recipe: RecipeConfig, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, console: Console
) -> None:
    """Train on text about scenes that are never shown: co-occurrence, wording, questions."""
    unseen = itertools.count(_PRIOR_START)

    def draw() -> TokenRow:
        scene = sample_scene(recipe.world, "train", next(unseen))
        rng = scene_rng(recipe.world, "train", scene.index, purpose=1)
        return tokenize(tokenizer, conversation(rng, scene, recipe.noise, recipe.prior_described), None, 0)

    steps = recipe.prior_rows // recipe.batch_size
    batches = length_batches(draw, recipe.batch_size, np.random.default_rng([recipe.seed, 19]))
    parts = [model.model.language_model, model.lm_head]
    run = train(model, parts, steps, batches, None, recipe, recipe.learning_rate)
    _follow("prior", steps, run, console)


def _train_joint(
    recipe: RecipeConfig,
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scene],
    work: Path,
    console: Console,
) -> None:
    """Projector alignment, then language model and projector on mixed instruction rows."""
    patches = model.config.image_seq_length
    console.print(f"rendering {len(scenes)} natural scenes")
    views = _views(recipe, "train", len(scenes))
    features = encode_pictures(model, np.concatenate([views.pixels, _blank_pictures(recipe)]))

    def run_alignment() -> None:
        _follow(
            "alignment", recipe.align_steps, align(model, tokenizer, views, features[: len(scenes)], recipe), console
        )

    def draw(rng: np.random.Generator, phase: Phase) -> TokenRow:
        number, noise = int(rng.integers(len(scenes))), phase.noise or recipe.noise
        picture: int | None = number
        roll = rng.random()
        if roll < phase.text_only:
            picture = None
        elif roll < phase.text_only + phase.lost:
            picture = len(scenes) + int(rng.integers(_BLANKS))
        described = phase.described if picture == number else 1.0
        return tokenize(tokenizer, conversation(rng, scenes[number], noise, described), picture, patches)

    _stage(work / "aligned.safetensors", model, console, run_alignment)
    parts = [model.model.multi_modal_projector, model.model.language_model, model.lm_head]
    for number, phase in enumerate(recipe.phases):

        def run(number: int = number, phase: Phase = phase) -> None:
            # One generator per phase, so that a resumed run draws the same rows.
            rng = np.random.default_rng([recipe.seed, 21 + number])
            batches = length_batches(functools.partial(draw, rng, phase), recipe.batch_size, rng)
            steps = train(model, parts, phase.steps, batches, features, recipe, recipe.learning_rate)
            _follow(f"instruction {number}", phase.steps, steps, console)

        _stage(work / f"instructed-{number}.safetensors", model, console, run)


def _blank_pictures(recipe: RecipeConfig) -> np.ndarray:
    """Pictures of one uniform color, as in web data with lost pictures; uint8 [picture, height, width, 3]."""
    colors = np.random.default_rng([recipe.seed, 18]).integers(0, 256, size=(_BLANKS, 1, 1, 3))
    return np.broadcast_to(colors.astype(np.uint8), (_BLANKS, IMAGE_SIZE, IMAGE_SIZE, 3))


def _views(recipe: RecipeConfig, split: str, count: int) -> Views:
    return Views(recipe.world, split, count, recipe.patch_size, workers=torch.get_num_threads())


def _stage(path: Path, model: LlavaForConditionalGeneration, console: Console, run: Callable[[], None]) -> None:
    """Run a stage unless its weights exist."""
    if path.exists():
        console.print(f"{path.stem}: loaded from {path}")
    else:
        run()
        _save(path, {k: v for k, v in model.state_dict().items() if not k.startswith("lm_head")})
    model.load_state_dict(load_file(path), strict=False)  # the head is tied to the embeddings


def _save(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write atomically: a kill leaves no partial stage."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, temporary)
    temporary.replace(path)


def _follow(name: str, steps: int, run: Iterator[tuple[int, float]], console: Console) -> None:
    """Run a stage to its end, printing progress."""
    started, mean = time.monotonic(), 0.0
    for step, loss in run:
        mean = loss if step == 0 else 0.98 * mean + 0.02 * loss
        if step % max(1, steps // 20) == 0 or step == steps - 1:
            console.print(f"{name}: step {step + 1}/{steps}, loss {mean:.3f}, {time.monotonic() - started:.0f} s")
