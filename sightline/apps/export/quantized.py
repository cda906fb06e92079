"""Quantization of linear layers to 8 or 4 bits in the compressed-tensors format, which vLLM and Transformers read.

Round to nearest, without calibration data: 8 bits with one scale per row, 4 bits with one per group of columns.
Vision tower, projector and head stay as they are. `check` measures the effect, and the card reports it.
"""

import importlib.util
from pathlib import Path
from typing import Any, Literal

from torch import nn

from sightline.errors import InputError
from sightline.models.vlm import VLM
from sightline.records.store import read_json, write_json

Bits = Literal[4, 8]
#: Columns that share a 4-bit scale, sizes that fast kernels support; the first that divides every layer is used.
GROUPS = (128, 64, 32)


def require_quantizer() -> None:
    """Check for compressed-tensors.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("compressed_tensors") is None:
        raise InputError("int8 and int4 need compressed-tensors; pip install 'sightline[export]', or export bfloat16")


def quantize(vlm: VLM, bits: Bits) -> dict[str, Any]:
    """Quantize the language model's linear layers; returns the quantization_config for `config.json`.

    The model computes with rounded weights; the stored weights change only in `pack`.

    Raises:
        InputError: the package is missing, or 4 bits where no group size divides a layer's columns.
    """
    require_quantizer()
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    model = vlm.base
    group = None if bits == 8 else _group_size(vlm)
    strategy = "channel" if group is None else "group"
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy=strategy, group_size=group)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    config = QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=_ignored_patterns(vlm), format="pack-quantized"
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        layer_scheme = getattr(module, "quantization_scheme", None)
        if layer_scheme is None or layer_scheme.weights is None:
            continue
        weight = module.weight.detach().float()
        groups = weight.unflatten(1, (-1, group or weight.shape[1]))
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), layer_scheme.weights)
        module.weight_scale.data = scale.to(module.weight_scale.dtype)
        module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
        module.quantization_status = QuantizationStatus.FROZEN
    settings: dict[str, Any] = config.to_dict()
    return {**settings, "quantization_status": "compressed"}


def pack(vlm: VLM) -> None:
    """Pack the rounded weights into their bits, in place; afterwards the model can only be saved."""
    from compressed_tensors.compressors import ModelCompressor

    ModelCompressor.from_pretrained_model(vlm.base, quantization_format="pack-quantized").compress_model(vlm.base)


def write_quantization(directory: Path, settings: dict[str, Any]) -> None:
    """Write the quantization into the saved model's `config.json`, with patterns that match either reader's names."""
    path = directory / "config.json"
    write_json(path, {**read_json(path), "quantization_config": settings})


def _ignored_patterns(vlm: VLM) -> list[str]:
    """Patterns for everything but the language model: its siblings, and the head."""
    model = vlm.base
    decoder = model.get_decoder()
    path = next(name for name, module in model.named_modules() if module is decoder).split(".")
    names = ["lm_head"]
    for depth in range(len(path)):
        parent = model.get_submodule(".".join(path[:depth])) if depth else model
        names += [name for name, _ in parent.named_children() if name != path[depth]]
    return [f"re:.*{name}.*" for name in dict.fromkeys(names)]


def _group_size(vlm: VLM) -> int:
    columns = {layer.in_features for layer in vlm.base.get_decoder().modules() if isinstance(layer, nn.Linear)}
    for size in GROUPS:
        if all(count % size == 0 for count in columns):
            return size
    raise InputError(f"{vlm.path}: no group of {', '.join(map(str, GROUPS))} columns divides its layers; export int8")
