"""Session fixtures: the tiny model, its images, and a copy trained to memorize a few answers."""

from pathlib import Path

import pytest
import torch

from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from tests.models.tiny import save_pictures, save_tiny_llava


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def vlm(tiny_directory: Path) -> VLM:
    return load_vlm(tiny_directory)


@pytest.fixture(scope="session")
def lessons(pictures: list[Path]) -> list[ScoreRequest]:
    """Two images with one prompt, and one of them with another prompt, each with the answer that `fluent` memorized."""
    describe, ask = "Describe the picture.", "Is there a spoon in the image?"
    return [
        ScoreRequest(
            Prefix((pictures[0],), describe),
            ("A red cup and a blue plate stand on the table. There is a small kettle.",),
        ),
        ScoreRequest(
            Prefix((pictures[1],), describe),
            ("In addition, a boat and an umbrella are on the beach. The palm is green.",),
        ),
        ScoreRequest(Prefix((pictures[0],), ask), ("No, there is no spoon.",)),
    ]


@pytest.fixture(scope="session")
def fluent(tiny_directory: Path, lessons: list[ScoreRequest]) -> VLM:
    """The tiny model trained through the scorer until it has memorized `lessons`."""
    vlm = load_vlm(tiny_directory)
    vlm.model.requires_grad_(True)
    optimizer = torch.optim.Adam(vlm.model.parameters(), lr=0.01)
    for _ in range(40):
        loss = -answer_logps(vlm, lessons).sums().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.1
    return vlm
