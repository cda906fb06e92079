"""Samples of scenes: rendered images, prompts, and references as imperfect as real instruction data.

Used by `sightline lab scenes` and, for images, by the benchmarks; `world` draws the scenes.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from sightline.config import Config
from sightline.data.samples import write_samples
from sightline.data.terminal import Progress, with_progress
from sightline.errors import InputError
from sightline.lab.drawing import render
from sightline.lab.instructions import InstructionNoise, instructions
from sightline.lab.language import ReferenceNoise
from sightline.lab.questions import draw_question
from sightline.lab.recipe.joint import caption, description
from sightline.lab.words import WorldConfig
from sightline.lab.world import SPLITS, Scene, sample_scene, scene_rng
from sightline.records import Sample
from sightline.records.concurrent import concurrent_atomic_write, remove_leftovers
from sightline.records.hashing import hash_json
from sightline.records.manifest import Stage

_PURPOSE = 3  # number of this use of a scene's random streams


class ScenesConfig(Config):
    """Settings of `sightline lab scenes`: mostly descriptions, as in the instruction data."""

    world: WorldConfig = Field(
        default=WorldConfig(), description="probabilities of the world that scenes are drawn from"
    )
    noise: ReferenceNoise = Field(
        default=ReferenceNoise(companion=0.2), description="fewer inventions than in instruction data: a curated set"
    )
    described: float = Field(default=0.8, ge=0, le=1, description="share of samples that ask for a description")
    captioned: float = Field(
        default=0.05, ge=0, le=1, description="share that asks for a caption; the rest are questions"
    )
    instructions: InstructionNoise | None = Field(
        default=None, description="instruction data of mixed quality in place of all this, several samples a scene"
    )


def image_name(scene: Scene) -> str:
    """The image's relative path, with a hash of the scene so that another world's picture is never reused."""
    return f"images/{scene.id}-{hash_json(scene.to_truth())[:8]}.png"


def image_path(folder: Path, scene: Scene) -> str:
    """Render the scene into `folder/images` unless it exists; returns the path relative to `folder`."""
    relative = image_name(scene)
    target = folder / relative
    draw_once(target, lambda: render(scene))
    return relative


def draw_once(target: Path, draw: Callable[[], Image.Image]) -> None:
    """Write a picture as PNG unless it exists; safe if several processes draw the same picture."""
    if target.exists():
        remove_leftovers(target)
        return
    with concurrent_atomic_write(target) as temporary:
        draw().save(temporary, format="PNG")


def lab_samples(config: ScenesConfig, split: str, count: int, folder: Path) -> Iterator[Sample]:
    """Samples of `count` scenes of a split; their images are drawn into `folder` on demand."""
    for index in range(count):
        scene = sample_scene(config.world, split, index)
        rng = scene_rng(config.world, split, index, _PURPOSE)
        if config.instructions is not None:
            yield from instructions(rng, scene, image_path(folder, scene), config.instructions)
            continue
        task, prompt, reference = _ask(rng, scene, config)
        yield Sample(
            id=scene.id,
            images=(image_path(folder, scene),),
            prompt=prompt,
            reference=reference,
            task=task,
            cluster=scene.id,
            truth=scene.to_truth(),
        )


def write_scenes(
    config: ScenesConfig,
    split: str,
    count: int,
    out: Path,
    progress: Progress | None = None,
) -> Path:
    """The stage `lab scenes`: a samples directory of `count` scenes; existing images are kept."""
    if split not in SPLITS:
        near = get_close_matches(split, SPLITS, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no split {split!r}; did you mean {near!r}? (splits: {', '.join(SPLITS)})")
    request = _Request(split=split, count=count, scenes=config)
    stage = Stage.open(out, "lab scenes", request, {}, config.world.seed)
    if not stage.done:
        drawn = lab_samples(config, split, count, out)
        written = write_samples(out, with_progress(drawn, progress, count))
        stage.finish(counts={"samples": written})
    return out


class _Request(Config):
    """The settings that identify a samples directory of the lab, for its manifest."""

    split: str = Field(description="split of the lab")
    count: int = Field(description="number of scenes")
    scenes: ScenesConfig = Field(description="the settings of the scenes")


def _ask(rng: np.random.Generator, scene: Scene, config: ScenesConfig) -> tuple[str, str, str]:
    roll = rng.random()
    if roll < config.described:
        (prompt, reference), _ = description(rng, scene, config.noise)
        return "description", prompt, reference
    if roll < config.described + config.captioned:
        return "caption", *caption(rng, scene)
    question = draw_question(rng, scene)
    return question.task, question.text, question.answer
