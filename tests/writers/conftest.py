"""The random tiny model of the builders' tests."""

from tests.builders.conftest import model_dir, vlm

__all__ = ["model_dir", "vlm"]
