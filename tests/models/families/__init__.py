"""One tiny random model for each family: its own classes, and a chat template of the form it was published with.

They test computations, not quality. Nothing here imports Transformers before a family is requested, so that
`torchvision_shim.install` can be called first.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

#: Families whose types or correct forward passes are missing in older versions of Transformers -> the oldest version
#: with which they were tested. Older ones leave out the soft caps of PaliGemma 2.
SINCE = dict.fromkeys(
    ("paligemma2", "qwen3_5", "qwen3_5_moe", "lfm2_vl", "lfm3_vl", "minicpmv4_6", "nemotron_h_omni", "qwen4_exp"),
    (5, 23),
)


def _family(module: str, name: str) -> Callable[[Path], Path]:
    def save(directory: Path) -> Path:
        installed = version("transformers")
        if tuple(int(part) for part in installed.split(".")[:2]) < SINCE.get(name, (0, 0)):
            pytest.skip(f"{name} is tested from Transformers {'.'.join(map(str, SINCE[name]))} on; this is {installed}")
        written: Path = getattr(import_module(f"tests.models.families.{module}"), f"save_{name}")(directory)
        return written

    return save


#: Text-only families.
TEXT = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
#: Families that differ from another one in settings only; their conformance tests are slow.
TWINS = frozenset({"qwen2_vl", "smolvlm", "paligemma2", "mistral", "qwen2", "gemma3_text"})
#: Hybrid families; `test_linear_layers` has the quick tests of their layers.
HYBRIDS = ("qwen3_5", "qwen3_5_moe", "lfm2_vl", "lfm3_vl", "minicpmv4_6", "nemotron_h_omni", "qwen4_exp")
#: Family name -> function that writes its model and processor into a directory and returns the directory.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    name: _family(module, name)
    for module, names in {
        "llava": ("llava", "llava_next", "llava_onevision"),
        "qwen": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
        "internvl": ("internvl",),
        "idefics": ("idefics3", "smolvlm"),
        "gemma": ("paligemma", "paligemma2", "gemma3"),
        "hybrid": HYBRIDS,
        "text": TEXT,
    }.items()
    for name in names
}


def family_params(*, seeing: bool = False) -> list[object]:
    """Every family's name as a test parameter, near duplicates and hybrids marked slow; with `seeing` only multimodal
    families.
    """
    slow = {*TWINS, *HYBRIDS}
    names = (name for name in FAMILIES if not (seeing and name in TEXT))
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else pytest.param(name) for name in names]
