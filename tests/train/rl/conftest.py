"""Pictures for the prompts of rollouts."""

from pathlib import Path

import pytest

from tests.models.tiny import save_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("prompts"))
