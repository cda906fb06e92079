"""What must hold of a model's files and weights before anything is computed, as sentences for the user.

The files come from strangers: a reader of theirs may raise anything, weights may be pickled, cut off or not finite, and
a chat template may be broken or hostile. Opening them is `loading`; whether the answers are any good is for `evals`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sightline.errors import InputError
from sightline.models.requests import Prefix
from sightline.records.store import read_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


@contextlib.contextmanager
def refusing(sentence: str, remedy: str = "") -> Iterator[None]:
    """Inside, whatever a reader of foreign files raises becomes an InputError: `sentence (reason)remedy`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Rust and five Python libraries read these files, each with errors of its own
        raise InputError(f"{sentence} ({first_line(error)}){remedy}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_adapter(folder: Path) -> None:
    """Check the files of a PEFT adapter before PEFT opens them.

    Raises:
        InputError: no adapter, one of an unknown kind, pickled or damaged weights, a weight that is not finite, or a
            rank that the weights do not have.
    """
    config = _adapter_config(folder)
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        if (folder / PICKLED).is_file():
            raise InputError(
                f"{folder / PICKLED} is pickled, and opening it may run code; convert it to {ADAPTER_WEIGHTS}: "
                "safetensors.torch.save_file(torch.load(FILE, weights_only=True), ...)"
            )
        raise InputError(f"adapter {folder} has no {ADAPTER_WEIGHTS}; name the directory that PEFT saved")
    largest = 0
    for name, tensor in tensors_of(path):
        _require_finite_tensor(path, name, tensor)
        if ".lora_A." in name or ".lora_embedding_A" in name:
            largest = max(largest, tensor.shape[0])
    rank = config.get("r")
    if largest and isinstance(rank, int) and not config.get("rank_pattern") and rank > largest:
        raise InputError(
            f"adapter {folder} does not fit itself: {ADAPTER_CONFIG} has rank {rank}, its weights have {largest}"
        )


def tensors_of(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file by name, one in memory at a time.

    Raises:
        InputError: the file is missing, damaged or cut off.
    """
    try:
        with safe_open(str(path), "pt") as file:
            for name in file.keys():  # noqa: SIM118  # safe_open is no mapping
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({first_line(error)}); copy it again") from error


def check_headers(path: str | Path) -> None:
    """Raise InputError, with the file, if a safetensors file of a model directory is damaged or cut off."""
    for file in sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []:
        next(tensors_of(file), None)


def require_finite(model: Any, path: str | Path) -> None:
    """Raise InputError, with the file and the tensor, unless every weight of the model is a finite number."""
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        # One sum finds nearly every bad tensor, and needs no second tensor of that size.
        if not torch.isfinite(weight.detach().sum(dtype=torch.float32)) and not torch.isfinite(weight.detach()).all():
            for file in sorted(Path(path).rglob("*.safetensors")) if Path(path).is_dir() else []:
                for own, tensor in tensors_of(file):
                    _require_finite_tensor(file, own, tensor)
            raise InputError(
                f"{path}: the weight {name} has values that are no finite {str(weight.dtype).removeprefix('torch.')}; "
                "set dtype=float32, or download the model again"
            )


def check_template(path: str | Path, processor: Any, *, sees: bool) -> None:
    """Raise InputError unless the chat template renders a user's turn, which every prompt is."""
    words: Any = [{"type": "image"}, {"type": "text", "text": "What is it?"}] if sees else "What is it?"
    with refusing(f"the chat template of {path} cannot be rendered", "; correct chat_template.jinja"):
        processor.apply_chat_template([{"role": "user", "content": words}], add_generation_prompt=True, tokenize=False)


def not_a_number(path: str, prefix: Prefix) -> InputError:
    """The error for a row of which the model computes NaN."""
    prompt = prefix.prompt if len(prefix.prompt) <= 60 else prefix.prompt[:57] + "..."
    shown = f" about {', '.join(image.name for image in prefix.images)}" if prefix.images else ""
    return InputError(
        f"{path} computes NaN for the prompt {prompt!r}{shown}; its weights or its number format are at fault: set "
        "dtype=float32 and autocast=false, or name another model or adapter"
    )


def _adapter_config(folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says; a kind of PEFT's that changes layers, since the engine has no other."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is not an adapter directory: it has no {ADAPTER_CONFIG}")
    config = read_json(path)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    known: dict[str, type[PeftConfig]] = {str(key.value): value for key, value in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f"{path}: peft_type is {kind!r}, which this PEFT does not know; name a LoRA adapter")
    if issubclass(known[kind], PromptLearningConfig):
        raise InputError(f"{path}: peft_type {kind} puts tokens before the prompt, which is not supported; use LoRA")
    return dict(config)


def _require_finite_tensor(file: Path, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        raise InputError(f"{file}: the tensor {name} has NaN or infinite values; train it, or download it, again")
