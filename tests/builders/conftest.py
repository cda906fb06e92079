"""Real lab images with hand-written references; a random tiny model, and one that has memorized its answers."""

from pathlib import Path

import pytest
import torch

from sightline.data.samples import write_samples
from sightline.lab.drawing import render
from sightline.lab.words import WorldConfig
from sightline.lab.world import sample_scene
from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from sightline.records import Sample
from tests.models.tiny import save_tiny_llava

DESCRIBE, ASK = "Describe the picture.", "Is there a spoon in the image?"
#: prompt and reference; white space between sentences differs on purpose, and two references begin with yes or no.
QUESTIONS = (
    (DESCRIBE, "A red cup and a blue plate stand on the table. There is a small kettle."),
    (DESCRIBE, "There are two cows and one hen.\n\nThe barn is red.  A palm is next to it."),
    (ASK, "No, there is no spoon."),
    (ASK, "Yes. There is a spoon in front of the pan."),
    (DESCRIBE, "In addition, a boat and an umbrella are on the beach."),
    (ASK, "No."),
)
#: What the `fluent` model says: to the first picture, to the second, and, asked something else, nothing at all.
LEARNED = (
    (0, DESCRIBE, "A red cup and a blue plate stand on the table. There is a small kettle."),
    (1, DESCRIBE, "In addition, a boat and an umbrella are on the beach. The palm is green."),
    (0, ASK, "No, there is no spoon."),
    (0, "How many cows are there?", ""),
)


def save_scenes(directory: Path, count: int, split: str = "preference") -> list[str]:
    """Draw scenes of the lab into `directory/images`; the names are the same for every split."""
    (directory / "images").mkdir(parents=True)
    names = [f"images/{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        render(sample_scene(WorldConfig(), split, number)).save(directory / name)
    return names


def make_samples(images: list[str], questions: tuple[tuple[str, str], ...] = QUESTIONS) -> list[Sample]:
    """One sample a picture, with prompts and references in turn."""
    return [
        Sample(
            id=f"scene-{number:02d}",
            images=(image,),
            prompt=questions[number % len(questions)][0],
            reference=questions[number % len(questions)][1],
            task="description",
            cluster=f"cluster-{number:02d}",
        )
        for number, image in enumerate(images)
    ]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def vlm(model_dir: Path) -> VLM:
    return load_vlm(model_dir)


@pytest.fixture(scope="session")
def samples_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with a sample each."""
    directory = tmp_path_factory.mktemp("samples")
    write_samples(directory, make_samples(save_scenes(directory, len(QUESTIONS))))
    return directory


@pytest.fixture
def samples(samples_dir: Path) -> list[Sample]:
    return make_samples([f"images/{number}.png" for number in range(len(QUESTIONS))])


@pytest.fixture(scope="session")
def fluent_dir(model_dir: Path, samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learned `LEARNED` by heart, saved like any checkpoint."""
    vlm = load_vlm(model_dir)
    lessons = [
        ScoreRequest(Prefix((samples_dir / f"images/{picture}.png",), prompt), (answer,))
        for picture, prompt, answer in LEARNED
    ]
    vlm.model.requires_grad_(True)
    optimizer = torch.optim.Adam(vlm.model.parameters(), lr=0.01)
    for _ in range(400):
        loss = -answer_logps(vlm, lessons).sums().mean()
        if loss.item() < 0.005:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.01
    directory = tmp_path_factory.mktemp("fluent-llava")
    vlm.model.save_pretrained(directory)
    vlm.processor.save_pretrained(directory)
    return directory
