"""Loading of a Hugging Face vision-language model with its processor and, optionally, a PEFT adapter.

A proof chooses how the model is computed (`proving`). `adapters` adds and saves LoRA; `encoding` prepares the model's
inputs.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging as transformers_logging

from sightline.errors import InputError
from sightline.models.compat import require_known_type
from sightline.models.composed import ADAPTER, is_composed, load_members
from sightline.models.decoder import expose_decoder
from sightline.models.families import FAMILIES, ModelFamily, Text
from sightline.models.pixels import set_picture_limits
from sightline.models.proving import with_way, without_proof
from sightline.models.quantization import quantization_config
from sightline.models.routing import route
from sightline.models.soundness import (
    ADAPTER_CONFIG,
    check_adapter,
    check_headers,
    check_template,
    first_line,
    no_loading_report,
    require_complete,
    require_finite,
    wrap_errors,
)
from sightline.models.spec import ModelOptions, ModelSpec
from sightline.models.tensor_cache import TensorCache, content_key
from sightline.models.vlm import VLM
from sightline.models.ways.row_by_row import RowByRowWay
from sightline.records.hashing import hash_file, hash_json


def find_gguf(path: str | Path) -> Path | None:
    """The GGUF file that `path` is, or that its directory holds instead of a checkpoint; else None.

    Raises:
        InputError: the directory holds several, and no config.json.
    """
    directory = Path(path)
    if directory.suffix == ".gguf" and directory.is_file():
        return directory
    if not directory.is_dir() or (directory / "config.json").is_file():
        return None
    found = sorted(directory.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{path} holds {len(found)} GGUF files ({names}); move the one to load into a separate folder")
    return found[0] if found else None


def gguf_arguments(file: Path | None) -> dict[str, str]:
    """The arguments with which Transformers reads the file; none for a checkpoint.

    Raises:
        InputError: the package gguf is not installed.
    """
    if file is None:
        return {}
    if find_spec("gguf") is None:
        raise InputError(f"{file} is a GGUF file, which needs: pip install 'sightline[smol]'")
    return {"gguf_file": file.name}


def drop_quantization(model: Any) -> Any:
    """Rebuild the model without its quantization config: its weights are floats now and could not be saved with it."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    plain = type(model)._from_config(type(model.config)(**settings), dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json", ADAPTER_CONFIG)


def load_vlm(
    path: str | Path,
    *,
    adapter: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    options: ModelOptions = ModelOptions(),  # noqa: B008 - frozen
    cache: TensorCache | None = None,
    weights: bool = True,
) -> VLM:
    """Load a checkpoint in evaluation mode with all weights frozen; commands and configs use `opening.open_model`.

    `path` is a directory, which may hold one GGUF file of a language model instead of a checkpoint, or a GGUF file;
    nothing is fetched. `device` and `dtype` (one of `DTYPES`) are those to compute with, so the same keys of `options`
    are not looked at, nor is its adapter. `cache` keeps image features. A composed directory (`sightline compose`)
    includes its adapters. Pickled weights and code from the checkpoint are refused unless `options.trust_remote_code`;
    pickled adapters always. Without `weights` the parameters stay on the meta device, for `train.sharding` to fill;
    buffers are as the model's class computes them.

    Raises:
        InputError: the directory, its config.json, its processor or the named adapter is missing; a file is damaged, a
            weight is not finite, or the chat template cannot be rendered; an option that the model does not take.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    _check_source(path)
    if not weights and (options.device_map or options.quantize != "none" or adapter or is_composed(path)):
        raise InputError(f"{path} cannot be opened without its weights: it is quantized, spread, composed or adapted")
    model, processor, family = _read(path, device, DTYPES[dtype], options, weights=weights)
    check_template(path, processor, is_multimodal=not isinstance(family, Text))
    require_finite(model, path)
    largest = set_picture_limits(model, processor, options, str(path))
    model, found = _placed(model, device, options, weights=weights), family or ModelFamily()
    place = torch.device(device) if options.device_map is None else model.get_input_embeddings().weight.device
    vlm = VLM(model, processor, str(path), place, DTYPES[dtype], RowByRowWay(), found, max_pixels=largest)
    vlm = with_way(vlm, listed=family is not None) if weights else without_proof(vlm, listed=family is not None)
    if is_composed(path):
        with wrap_errors(f"{path} is not a valid composed model", "; compose it again"):
            processor, found = load_members(Path(path), model, processor, DTYPES[dtype])
        adapter = _composed_adapter(Path(path), adapter)
        require_finite(model, path)
    if adapter is not None:
        model = _load_adapter(model, adapter, found.adapters)
    model = _placed(model, device, options, weights=weights)
    named = options if isinstance(options, ModelSpec) else ModelSpec(**dict(options), name=str(path))
    spec = named.with_options({"adapter": adapter, "device": device, "dtype": dtype})
    return replace(vlm, model=model, processor=processor, family=found, cache=cache, spec=spec)


def _placed(model: Any, device: str, options: ModelOptions, *, weights: bool) -> Any:
    """The model on its device, in evaluation mode and frozen: training unfreezes what it trains."""
    if not weights:
        _move_buffers(model, device)
    elif options.quantize == "none" and options.device_map is None:
        model = model.to(device)
    return model.eval().requires_grad_(False)


def _move_buffers(model: Any, device: str) -> None:
    """Move the buffers of a model without weights, in place."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


def _read(
    path: str | Path, device: str, dtype: torch.dtype, options: ModelOptions, *, weights: bool
) -> tuple[Any, Any, ModelFamily | None]:
    """Load model and processor of a checkpoint or a GGUF file with Transformers, and look up the family."""
    packed = find_gguf(path)
    gguf = gguf_arguments(packed)
    path, trust_remote_code = path if packed is None else packed.parent, options.trust_remote_code
    with no_progress_bars():
        with wrap_errors(f"{path} has no usable config.json"):
            require_known_type(Path(path))
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **gguf)
        family = FAMILIES.get(config.model_type)
        family = family if family is not None and family.supports(config) else None
        if packed is not None and not isinstance(family, Text):
            raise InputError(
                f"{packed} holds a {config.model_type!r} model; GGUF files are supported for language models only"
            )
        is_text = isinstance(family, Text)
        processor = _load_tokenizer(path, gguf) if is_text else _load_processor(path, trust_remote_code)
        check_headers(path)
        loader: Any = AutoModelForCausalLM if is_text else AutoModelForImageTextToText
        if packed is not None and (options.quantize != "none" or not weights):
            raise InputError(f"{packed} is quantized already and is opened as floats; leave quantize out")
        attention = None if options.attention == "auto" else options.attention
        if not weights:
            return _without_weights(loader, path, config, dtype, options), processor, family
        quantization = quantization_config(loader, config, options.quantize, dtype)
        device_map = options.device_map or ({"": device} if quantization is not None else None)
        unloadable = wrap_errors(f"{path} has no weights that can be loaded", "; copy or download the model again")
        with unloadable, no_loading_report():
            model, report = loader.from_pretrained(
                path,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **(gguf or {"config": config}),
                dtype=dtype,
                device_map=device_map,
                quantization_config=quantization,
                attn_implementation=attention,
                trust_remote_code=trust_remote_code,
                use_safetensors=None if trust_remote_code else True,
            )
            require_complete(model, report, packed or path)
            model = model if packed is None else drop_quantization(model)
    expose_decoder(model)
    return model, processor, family


def _without_weights(loader: Any, path: str | Path, config: Any, dtype: torch.dtype, options: ModelOptions) -> Any:
    """The model of a config, as `from_pretrained` makes it, with parameters on the meta device."""
    with init_empty_weights(include_buffers=False), wrap_errors(f"{path} has no usable config.json"):
        chosen = {} if options.attention == "auto" else {"attn_implementation": options.attention}
        model = loader.from_config(config, dtype=dtype, trust_remote_code=options.trust_remote_code, **chosen)
    model.tie_weights()
    with contextlib.suppress(OSError):  # a checkpoint need not have one
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model


def weights_hash(path: str | Path) -> str:
    """Content hash (sha256, hex) of weights and configs of a model or adapter directory; names count, times do not.

    Raises:
        InputError: not a directory, or a directory without weights.
    """
    directory = Path(path)
    files = _files(directory, WEIGHT_FILES)
    if not any(file.suffix in (".safetensors", ".bin", ".gguf") for file in files):
        raise InputError(f"{path} holds no weights (*.safetensors); name the directory of a model or an adapter")
    return _hash_of(directory, files)


def model_hash(vlm: VLM) -> str:
    """Content hash of everything that affects a model's outputs: weights, configs, tokenizer, processor, template."""
    directory, settings = Path(vlm.path), vlm.spec.identity()
    if directory.is_dir():
        kinds = (*WEIGHT_FILES, "*.json", "*.jinja", "*.model")
        files = _hash_of(directory, _files(directory, kinds))
        return hash_json([files, settings]) if settings else files
    weights = (part for pair in vlm.base.state_dict().items() if "lora_" not in pair[0] for part in pair)
    return content_key(vlm.path, vlm.base.config.to_json_string(), str(vlm.tokenizer.chat_template), *weights)


def _files(directory: Path, kinds: Sequence[str]) -> list[Path]:
    """The files of a model or an adapter, with subfolders for routed adapters and composed models only."""
    deep = is_composed(directory) or any(directory.glob(f"*/{ADAPTER_CONFIG}"))
    return sorted({file for kind in kinds for file in (directory.rglob(kind) if deep else directory.glob(kind))})


def _hash_of(directory: Path, files: Sequence[Path]) -> str:
    return hash_json({file.relative_to(directory).as_posix(): hash_file(file) for file in files})


def _check_source(path: str | Path) -> None:
    directory = Path(path)
    if directory.is_dir():
        if not (directory / "config.json").is_file() and find_gguf(directory) is None:
            raise InputError(f"{path} is not a model directory: it has no config.json")
    elif find_gguf(directory) is None:
        raise InputError(f"model {path} does not exist; name a model directory or a hub id such as owner/name")


def _load_processor(path: str | Path, trust_remote_code: bool) -> Any:
    """Load the processor; a bare tokenizer, AutoProcessor's fallback, is refused because it takes no images."""
    remedy = "save one there with processor.save_pretrained(directory)"
    try:
        processor: Any = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            path, trust_remote_code=trust_remote_code
        )
    except ImportError as error:
        raise InputError(f"the processor of {path} {_missing_package(error)}") from error
    except Exception as error:
        raise InputError(f"{path} has no usable processor ({first_line(error)}); {remedy}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise InputError(f"{path} has no processor for images and text; {remedy}")
    if not getattr(processor, "chat_template", None):
        raise InputError(f"the processor of {path} has no chat template; add chat_template.jinja to it")
    return processor


#: Packages that image processors need beyond Sightline's own, and the extra that brings them.
VISION_PACKAGES, VISION_EXTRA = ("torchvision", "num2words"), "vision"


def _missing_package(error: ImportError) -> str:
    """The package that a processor lacks, and how to install it."""
    text = f"{error.name or ''} {error}".lower()
    package = next((name for name in VISION_PACKAGES if name in text), None)
    if package is None:
        return f"needs a package that is not installed ({first_line(error)}); install it"
    return f"needs {package}, which is not installed; pip install 'sightline[{VISION_EXTRA}]'"


def _load_tokenizer(path: str | Path, gguf: dict[str, str]) -> Any:
    with wrap_errors(f"{path} has no usable tokenizer", "; save one there"):
        tokenizer: Any = AutoTokenizer.from_pretrained(path, **gguf)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"the tokenizer of {path} has no chat template; add chat_template.jinja to it")
    return tokenizer


def _composed_adapter(path: Path, adapter: Path | None) -> Path | None:
    """The adapter of a composed model: the included one or, if it has none, the one given."""
    own = path / ADAPTER
    if adapter is not None and own.is_dir():
        raise InputError(f"{path} is a composed model that includes adapters; leave {adapter} out")
    return own if own.is_dir() else adapter


def _load_adapter(model: Any, adapter: Path, members: tuple[str, ...]) -> PeftModel:
    """Load the adapter and, from folders by name, the adapters of image tokens (`members`) if there are any."""
    own = [name for name in members if (adapter / name / ADAPTER_CONFIG).is_file()]
    for folder in (adapter, *(adapter / name for name in own)):
        check_adapter(folder)
    with wrap_errors(f"adapter {adapter} does not fit the model"), peft_warnings_ignored():
        adapted = PeftModel.from_pretrained(model, str(adapter))
        for name in own:
            adapted.load_adapter(str(adapter / name), name)
        return route(adapted, members) if own else adapted


@contextlib.contextmanager
def peft_warnings_ignored() -> Iterator[None]:
    """Context without PEFT's warnings of a deprecated name and of merging a tied head, which Sightline unties."""
    with warnings.catch_warnings():
        for words in ("Model (has|with) `tie_word_embeddings=True`", "Input and output embeddings are no longer tied"):
            warnings.filterwarnings("ignore", message=words, category=UserWarning)
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Context without Transformers' progress bars; the stages show their own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
