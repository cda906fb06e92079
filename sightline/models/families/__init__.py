"""The families that are proved: log-probs, gradients and samples equal to the plain forward (tests/models)."""

from sightline.models.families.base import Family, Features
from sightline.models.families.gemma import Gemma3, PaliGemma
from sightline.models.families.idefics import Idefics
from sightline.models.families.qwen import Qwen, Qwen3
from sightline.models.families.text import Text

#: `model_type` of a checkpoint -> its adapter. Others go the plain way, row by row (`plain`).
FAMILIES: dict[str, Family] = {
    "llava": Family(),
    "llava_next": Family(),
    "llava_onevision": Family(),
    "internvl": Family(),
    "idefics3": Idefics(),
    "smolvlm": Idefics(),
    "qwen2_vl": Qwen(),
    "qwen2_5_vl": Qwen(),
    "qwen3_vl": Qwen3(),
    "paligemma": PaliGemma(),
    "gemma3": Gemma3(),
    "llama": Text(),
    "mistral": Text(),
    "qwen2": Text(),
    "qwen3": Text(),
    "gemma3_text": Text(),
}

__all__ = ["FAMILIES", "Family", "Features", "Text"]
