"""Open a vision-language model of the Hugging Face kind, with its processor and, if wanted, a PEFT adapter.

It runs nothing and trains nothing. A family whose scorer and sampler are not proved equal to the plain computation
goes the plain way, and a line says so. How LoRA is added and saved is `adapters`; what the model is fed is `encoding`.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sightline.errors import InputError
from sightline.models.attention import use_layouts
from sightline.models.composed import ADAPTER, is_composed, join
from sightline.models.families import FAMILIES, ModelFamily, Text
from sightline.models.routing import route
from sightline.models.soundness import (
    ADAPTER_CONFIG,
    check_adapter,
    check_headers,
    check_template,
    first_line,
    refusing,
    require_finite,
)
from sightline.models.tensor_cache import TensorCache, content_key
from sightline.models.vlm import VLM
from sightline.records.hashing import hash_file, hash_json


def gguf_of(path: str | Path) -> Path | None:
    """The GGUF file that a directory holds in the place of a checkpoint.

    Raises:
        InputError: there are several, and no config.json says what else the directory is.
    """
    directory = Path(path)
    if not directory.is_dir() or (directory / "config.json").is_file():
        return None
    found = sorted(directory.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"{path} holds {len(found)} GGUF files ({names}); put the one that is meant into its own folder"
        )
    return found[0] if found else None


def packed_arguments(file: Path | None) -> dict[str, str]:
    """What Transformers must be told to read the file; nothing for a checkpoint.

    Raises:
        InputError: the reader is not installed.
    """
    if file is None:
        return {}
    if find_spec("gguf") is None:
        raise InputError(f"{file} is a GGUF file, which needs: pip install 'sightline[smol]'")
    return {"gguf_file": file.name}


def unpacked(model: Any) -> Any:
    """The model without what says that its weights were packed: they are floats now, and could not be saved else."""
    told = model.config.to_dict()
    told.pop("quantization_config", None)
    plain = type(model)._from_config(type(model.config)(**told), dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json", ADAPTER_CONFIG)
log = logging.getLogger(__name__)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_vlm(
    path: str | Path,
    *,
    adapter: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    cache: TensorCache | None = None,
) -> VLM:
    """Open a checkpoint in evaluation mode, all weights frozen.

    `path` is a directory or, as a string, a hub id; nothing is asked of the network for a directory. A directory may
    hold one GGUF file of a language model in the place of a checkpoint (`gguf`). `dtype` is one of
    `DTYPES`. Pickled weights and code of the checkpoint's own are refused unless `trust_remote_code`. `cache` keeps the
    features of images. A composed directory (`compose`) brings its own adapters. Pickled adapters are always refused.

    Raises:
        InputError: no such directory, no config.json, no processor, no adapter where one is named; a file that is
            damaged, a weight that is not finite, a chat template that cannot be rendered.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    _check_source(path)
    model, processor, family = _read(path, DTYPES[dtype], trust_remote_code)
    if family is None:
        log.warning("%s is a %r model, which has no proof yet: it goes row by row.", path, model.config.model_type)
    else:
        use_layouts(model)
    found = family or ModelFamily()
    check_template(path, processor, sees=not isinstance(family, Text))
    if is_composed(path):
        with refusing(f"{path} is no composed model that can be opened", "; compose it again"):
            processor, found = join(Path(path), model, processor, DTYPES[dtype])
        adapter = _of_composed(Path(path), adapter)
    require_finite(model, path)
    if adapter is not None:
        model = _load_adapter(model, adapter, found.adapters)
    model = model.to(device).eval().requires_grad_(False)  # who trains says what
    place = torch.device(device)
    return VLM(model, processor, str(path), place, DTYPES[dtype], found, family is not None, cache)


def _read(path: str | Path, dtype: torch.dtype, trust_remote_code: bool) -> tuple[Any, Any, ModelFamily | None]:
    """Model, processor and family of a checkpoint or a GGUF file, as Transformers gives them."""
    packed = gguf_of(path)
    told = packed_arguments(packed)
    with quiet():
        with refusing(f"{path} has no usable config.json"):
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **told)
        family = FAMILIES.get(config.model_type)
        if packed is not None and not isinstance(family, Text):
            raise InputError(
                f"{packed} holds a {config.model_type!r} model; a GGUF file is read of language models alone"
            )
        is_text = isinstance(family, Text)
        processor = _load_tokenizer(path, told) if is_text else _load_processor(path, trust_remote_code)
        check_headers(path)
        loader: Any = AutoModelForCausalLM if is_text else AutoModelForImageTextToText
        with refusing(f"{path} has no weights that can be loaded", "; copy or download the model again"):
            model: Any = loader.from_pretrained(
                path,
                **(told or {"config": config}),
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=None if trust_remote_code else True,
            )
            model = model if packed is None else unpacked(model)
    return model, processor, family


def weights_hash(path: str | Path) -> str:
    """Content hash (sha256, hex) of the weights and configs of a model or adapter directory; names count, times do not.

    Raises:
        InputError: not a directory, or nothing in it that holds weights.
    """
    directory = Path(path)
    files = _files(directory, WEIGHT_FILES)
    if not any(file.suffix in (".safetensors", ".bin", ".gguf") for file in files):
        raise InputError(f"{path} holds no weights (*.safetensors); name the directory of a model or an adapter")
    return _hash_of(directory, files)


def content_of(vlm: VLM) -> str:
    """A hash of all that decides a model's numbers: weights, configs, tokenizer, processor and template."""
    directory = Path(vlm.path)
    if directory.is_dir():
        kinds = (*WEIGHT_FILES, "*.json", "*.jinja", "*.model")
        return _hash_of(directory, _files(directory, kinds))
    weights = (part for pair in vlm.base.state_dict().items() if "lora_" not in pair[0] for part in pair)
    return content_key(vlm.path, vlm.base.config.to_json_string(), str(vlm.tokenizer.chat_template), *weights)


def _files(directory: Path, kinds: Sequence[str]) -> list[Path]:
    """The files of a model or an adapter; only adapters by token and composed models have folders of further ones."""
    deep = is_composed(directory) or any(directory.glob(f"*/{ADAPTER_CONFIG}"))
    return sorted({file for kind in kinds for file in (directory.rglob(kind) if deep else directory.glob(kind))})


def _hash_of(directory: Path, files: Sequence[Path]) -> str:
    return hash_json({file.relative_to(directory).as_posix(): hash_file(file) for file in files})


def _check_source(path: str | Path) -> None:
    directory = Path(path)
    if directory.is_dir():
        if not (directory / "config.json").is_file() and gguf_of(directory) is None:
            raise InputError(f"{path} is not a model directory: it has no config.json")
    elif directory.exists() or isinstance(path, Path) or not HUB_ID.fullmatch(path):
        raise InputError(f"model {path} does not exist; name a model directory or a hub id such as owner/name")


def _load_processor(path: str | Path, trust_remote_code: bool) -> Any:
    """AutoProcessor falls back to a bare tokenizer where there is no processor; such a thing cannot see."""
    remedy = "save one there with processor.save_pretrained(directory)"
    try:
        processor: Any = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            path, trust_remote_code=trust_remote_code
        )
    except ImportError as error:
        raise InputError(f"the processor of {path} needs a package ({first_line(error)}); install it") from error
    except Exception as error:
        raise InputError(f"{path} has no usable processor ({first_line(error)}); {remedy}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise InputError(f"{path} has no processor for images and text; {remedy}")
    if not getattr(processor, "chat_template", None):
        raise InputError(f"the processor of {path} has no chat template; add chat_template.jinja to it")
    return processor


def _load_tokenizer(path: str | Path, told: dict[str, str]) -> Any:
    with refusing(f"{path} has no usable tokenizer", "; save one there"):
        tokenizer: Any = AutoTokenizer.from_pretrained(path, **told)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"the tokenizer of {path} has no chat template; add chat_template.jinja to it")
    return tokenizer


def _of_composed(path: Path, adapter: Path | None) -> Path | None:
    """The adapter of a composed model: its own, or where it has none the one that was trained on it."""
    own = path / ADAPTER
    if adapter is not None and own.is_dir():
        raise InputError(f"{path} is composed with adapters of its own; leave {adapter} out")
    return own if own.is_dir() else adapter


def _load_adapter(model: Any, adapter: Path, members: tuple[str, ...]) -> PeftModel:
    """One adapter, or beside that of text those of image tokens, `members`, each in a folder of its name."""
    own = [name for name in members if (adapter / name / ADAPTER_CONFIG).is_file()]
    for folder in (adapter, *(adapter / name for name in own)):
        check_adapter(folder)
    with refusing(f"adapter {adapter} does not fit the model"), peft_warnings_ignored():
        made = PeftModel.from_pretrained(model, str(adapter))
        for name in own:
            made.load_adapter(str(adapter / name), name)
        return route(made, members) if own else made


@contextlib.contextmanager
def peft_warnings_ignored() -> Iterator[None]:
    """PEFT asks Transformers for a name that is on its way out, and warns of merging a tied head, which we untie."""
    with warnings.catch_warnings():
        for words in ("Model (has|with) `tie_word_embeddings=True`", "Input and output embeddings are no longer tied"):
            warnings.filterwarnings("ignore", message=words, category=UserWarning)
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' own progress bars off the screen; the stages have theirs."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
