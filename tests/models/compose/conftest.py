"""The two tiny models and their inputs, created once."""

from pathlib import Path

import pytest

from tests.models.compose.siblings import save_ear, save_sounds
from tests.models.tiny import save_pictures, save_tiny_llava


@pytest.fixture(scope="session")
def eye(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("eye"))


@pytest.fixture(scope="session")
def ear(tmp_path_factory: pytest.TempPathFactory, eye: Path) -> Path:
    return save_ear(tmp_path_factory.mktemp("ear"), eye)


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="session")
def heard(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_sounds(tmp_path_factory.mktemp("heard"))
