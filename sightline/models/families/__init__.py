"""Model families whose log-probs, gradients and samples are proved equal to the plain forward (tests/models)."""

from sightline.models.families.base import Features, Idefics, Lfm3, MiniCPM, ModelFamily, Text
from sightline.models.families.qwen import Gemma3, PaliGemma, Qwen, Qwen3, Qwen4
from sightline.registry import Registry, load_target

#: `model_type` of a checkpoint -> its adapter. Other models are computed one row at a time (`models.unbatched`).
FAMILIES: Registry[ModelFamily] = Registry(
    "model family",
    "sightline.families",
    load_target,
    {
        **dict.fromkeys(("llava", "llava_next", "llava_onevision", "internvl"), ModelFamily()),
        **dict.fromkeys(("lfm2_vl", "nemotron_h_omni"), ModelFamily()),
        "lfm3_vl": Lfm3(),
        "minicpmv4_6": MiniCPM(),
        **dict.fromkeys(("idefics3", "smolvlm"), Idefics()),
        **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"), Qwen()),
        "qwen3_vl": Qwen3(),
        "qwen4_exp": Qwen4(),
        "paligemma": PaliGemma(),
        "gemma3": Gemma3(),
        **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma3_text"), Text()),
    },
)

__all__ = ["FAMILIES", "Features", "ModelFamily", "Text"]
