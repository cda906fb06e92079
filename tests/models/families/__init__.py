"""One tiny random model for each family: its own classes, and a chat template of the form it was published with.

They prove computations, never quality. Nothing here imports Transformers before a family is asked for, so that
`torchvision_shim.install` can be called first.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest


def _family(module: str, name: str) -> Callable[[Path], Path]:
    def save(directory: Path) -> Path:
        written: Path = getattr(import_module(f"tests.models.families.{module}"), f"save_{name}")(directory)
        return written

    return save


#: Those without eyes.
TEXT = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
#: Those that compute as another one does, but for settings: their conformance is a long proof.
TWINS = frozenset({"qwen2_vl", "smolvlm", "paligemma2", "mistral", "qwen2", "gemma3_text"})
#: Name to what writes its model and its processor into a directory, and returns that.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    name: _family(module, name)
    for module, names in {
        "llava": ("llava", "llava_next", "llava_onevision"),
        "qwen": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
        "internvl": ("internvl",),
        "idefics": ("idefics3", "smolvlm"),
        "gemma": ("paligemma", "paligemma2", "gemma3"),
        "text": TEXT,
    }.items()
    for name in names
}


def family_params(*, seeing: bool = False) -> list[object]:
    """Every family's name as a parameter of tests, twins marked slow; those without eyes left out where `seeing`."""
    names = (name for name in FAMILIES if not (seeing and name in TEXT))
    return [pytest.param(name, marks=pytest.mark.slow) if name in TWINS else pytest.param(name) for name in names]
