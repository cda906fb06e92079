"""Checks of a model's files and weights before anything is computed, with errors for the user.

The files are untrusted: readers may raise anything, weights may be pickled, truncated or not finite, and a chat
template may be broken or malicious. `loading` loads them; `evals` measures the quality of the answers.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
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
_SHOWN = 4  # names in an error
log = logging.getLogger(__name__)


@contextlib.contextmanager
def wrap_errors(sentence: str, remedy: str = "") -> Iterator[None]:
    """Context that turns any error of a reader of untrusted files into an InputError: `sentence (reason)remedy`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Rust and five Python libraries read these files, each with its own errors
        raise InputError(f"{sentence} ({first_line(error)}){remedy}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_adapter(folder: Path) -> None:
    """Check the files of a PEFT adapter before PEFT loads them.

    Raises:
        InputError: no adapter, an unknown type, pickled or damaged weights, a weight that is not finite, or a rank that
            the weights do not have.
    """
    config = _adapter_config(folder)
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        if (folder / PICKLED).is_file():
            raise InputError(
                f"{folder / PICKLED} is pickled, and loading it may run code; convert it to {ADAPTER_WEIGHTS}: "
                "safetensors.torch.save_file(torch.load(FILE, weights_only=True), ...)"
            )
        raise InputError(f"adapter {folder} has no {ADAPTER_WEIGHTS}; name the directory that PEFT saved")
    largest = 0
    for name, tensor in iter_tensors(path):
        _require_finite_tensor(path, name, tensor)
        if ".lora_A." in name or ".lora_embedding_A" in name:
            largest = max(largest, tensor.shape[0])
    rank = config.get("r")
    if largest and isinstance(rank, int) and not config.get("rank_pattern") and rank > largest:
        raise InputError(
            f"adapter {folder} is inconsistent: {ADAPTER_CONFIG} has rank {rank}, its weights have {largest}; "
            "save it again"
        )


def iter_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a safetensors file by name, one in memory at a time.

    Raises:
        InputError: the file is missing, damaged or truncated.
    """
    try:
        with safe_open(str(path), "pt") as file:
            for name in file.keys():  # noqa: SIM118  # safe_open is no mapping
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file ({first_line(error)}); copy it again") from error


def check_headers(path: str | Path) -> None:
    """Raise InputError, naming the file, if a safetensors file of a model directory is damaged or truncated."""
    for file in sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []:
        next(iter_tensors(file), None)


def require_complete(model: Any, report: Mapping[str, Any], path: str | Path) -> None:
    """Check Transformers' loading `report` of a checkpoint: it draws missing weights at random and only logs that.

    Weights that a config ties to others, and those that the model's class declares as optional, are not in the report.
    Extra weights of a module that the model lacks (a value head, layers for speculative decoding) are ignored with a
    warning: they change no output.

    Raises:
        InputError: a weight is missing or has another shape, or there is one that the model has no place for, as in a
            module list that is longer than config.json states.
    """
    missing, extra = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise InputError(
            f"{path}: the weight {name} has the shape {list(found)} instead of {list(expected)}, as its config.json "
            "requires; correct its config.json, or copy or download the model again"
        )
    if missing:
        raise InputError(
            f"{path} lacks {_listed(missing)}, which its config.json requires; copy or download the model again, or "
            "correct its config.json"
        )
    modules = {name for name, _ in model.named_modules() if name}
    misplaced = [name for name in extra if _module_above(name) in modules]
    if misplaced:
        raise InputError(
            f"{path} has {_listed(misplaced)}, for which its config.json has no place; correct its config.json, or "
            "copy or download the model again"
        )
    if extra:
        log.warning("%s: ignoring %s, which this type of model does not have", path, _listed(extra))


@contextlib.contextmanager
def no_loading_report() -> Iterator[None]:
    """Context without Transformers' logged table of missing and extra weights, which `require_complete` names."""
    source = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    source.addFilter(other)
    try:
        yield
    finally:
        source.removeFilter(other)


def _module_above(name: str) -> str:
    """The module that a weight belongs to: `head` of `head.bias`, and the list `layers` of `layers.5.mlp.weight`."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return ".".join(parts[:number] if number else parts[:-1])


def _listed(names: Sequence[str]) -> str:
    """A count and the first names: `3 weights (a, b, c)`."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} ({shown})"


def require_finite(model: Any, path: str | Path) -> None:
    """Raise InputError, naming file and tensor, unless every weight of the model is finite."""
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        # The sum finds nearly every bad tensor without allocating a second one of that size.
        if not torch.isfinite(weight.detach().sum(dtype=torch.float32)) and not torch.isfinite(weight.detach()).all():
            for file in sorted(Path(path).rglob("*.safetensors")) if Path(path).is_dir() else []:
                for own, tensor in iter_tensors(file):
                    _require_finite_tensor(file, own, tensor)
            raise InputError(
                f"{path}: the weight {name} is not finite in {str(weight.dtype).removeprefix('torch.')}; "
                "set dtype=float32, or download the model again"
            )


def check_template(path: str | Path, processor: Any, *, is_multimodal: bool) -> None:
    """Raise InputError unless the chat template renders a user turn."""
    words: Any = [{"type": "image"}, {"type": "text", "text": "What is it?"}] if is_multimodal else "What is it?"
    with wrap_errors(f"the chat template of {path} cannot be rendered", "; correct chat_template.jinja"):
        processor.apply_chat_template([{"role": "user", "content": words}], add_generation_prompt=True, tokenize=False)


def nan_error(path: str, prefix: Prefix) -> InputError:
    """The error for a row for which the model computes NaN."""
    prompt = prefix.prompt if len(prefix.prompt) <= 60 else prefix.prompt[:57] + "..."
    shown = f" about {', '.join(image.name for image in prefix.images)}" if prefix.images else ""
    return InputError(
        f"{path} computes NaN for the prompt {prompt!r}{shown}, because of its weights or its dtype; set "
        "dtype=float32 and autocast=false, or use another model or adapter"
    )


def _adapter_config(folder: Path) -> dict[str, Any]:
    """The content of `adapter_config.json`, checked to be a PEFT type that changes layers, as the engine requires."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is not an adapter directory: it has no {ADAPTER_CONFIG}")
    config = read_json(path)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    known: dict[str, type[PeftConfig]] = {str(key.value): value for key, value in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f"{path}: peft_type is {kind!r}, which the installed PEFT does not know; use a LoRA adapter")
    if issubclass(known[kind], PromptLearningConfig):
        raise InputError(f"{path}: peft_type {kind} puts tokens before the prompt, which is not supported; use LoRA")
    return dict(config)


def _require_finite_tensor(file: Path, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        raise InputError(f"{file}: the tensor {name} has NaN or infinite values; train it, or download it, again")
