"""The families that are proved: log-probs, gradients and samples equal to the plain forward (tests/models)."""

from sightline.models.families.base import Features, Idefics, ModelFamily, Text
from sightline.models.families.gemma import Gemma3, PaliGemma
from sightline.models.families.qwen import Qwen, Qwen3

#: `model_type` of a checkpoint -> its adapter. Others go the plain way, row by row (`plain`).
FAMILIES: dict[str, ModelFamily] = {
    "llava": ModelFamily(),
    "llava_next": ModelFamily(),
    "llava_onevision": ModelFamily(),
    "internvl": ModelFamily(),
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

__all__ = ["FAMILIES", "Features", "ModelFamily", "Text"]
