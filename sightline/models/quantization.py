"""Quantized base models by bitsandbytes: which matrices are packed, and what a packed model cannot do.

Only the linear layers of the language model are quantized; vision tower, projector, embeddings and head keep their
format, so image features do not change (QLoRA, arXiv 2305.14314).
"""

import re
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from sightline.errors import InputError
from sightline.models.composed import decoder_name
from sightline.models.spec import Quantization


def quantization_config(loader: Any, config: Any, quantize: Quantization, dtype: torch.dtype) -> Any:
    """The settings with which Transformers quantizes a checkpoint while it loads it; None for `none`.

    `loader` is the auto class, `config` the checkpoint's. Products are computed in `dtype`.

    Raises:
        InputError: bitsandbytes is not installed, or the checkpoint is quantized already.
    """
    if quantize == "none":
        return None
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"quantize={quantize}: the checkpoint is quantized already; leave quantize out")
    if find_spec("bitsandbytes") is None:
        raise InputError(f"quantize={quantize} needs bitsandbytes; pip install 'sightline[quant]'")
    with torch.device("meta"):
        decoder = decoder_name(loader.from_config(config))
    others = rf"(?!{re.escape(decoder)}\.).*"
    if quantize == "int8":
        # Without a threshold: columns with outliers are found over all rows of a pass, so that with one a row's numbers
        # would depend on the others (0.07 nats a token on the lab's model).
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=[others]
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[others],
    )


def is_quantized(base: Any) -> bool:
    """Whether the weights of a Transformers model are quantized."""
    return getattr(base, "hf_quantizer", None) is not None or getattr(base, "is_quantized", False)


def require_floats(base: Any, path: str, purpose: str, remedy: str) -> None:
    """Refuse a purpose that needs the weights as floats.

    Raises:
        InputError: the model is quantized.
    """
    if is_quantized(base):
        raise InputError(f"{path} is opened with quantized weights and cannot be {purpose}; {remedy}")
