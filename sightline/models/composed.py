"""A model composed of several that share a language model: its family, its processor, and loading of its directory.

`composed.json` names the kinds of media in order. The directory itself is the first member's checkpoint, `encoders/`
holds the encoders of the others, `adapter/` the merged changes of the language model. `recipes.composition` makes it.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from sightline.errors import InputError
from sightline.models.families.base import Features, ModelFamily
from sightline.models.vlm import decoder_of
from sightline.records.store import read_json

COMPOSED, ENCODERS, ENCODER_WEIGHTS, ADAPTER = "composed.json", "encoders", "encoder.safetensors", "adapter"
MEMBERS = "members"


class Composed(ModelFamily):
    """The family of a model composed of plain `ModelFamily` members; `names` are the kinds of media it takes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def media_kwargs(self, media: tuple[str, ...], images: int, where: str) -> dict[str, Any]:
        kinds = media or self.names[:1] * images
        if len(kinds) != images:
            raise InputError(f"{where} names {len(kinds)} media and has {images} images; name one per image")
        strange = next((name for name in kinds if name not in self.names), None)
        if strange is not None:
            raise InputError(
                f"{where} has the medium {strange}, the model takes {', '.join(self.names)}; correct `media`"
            )
        return {"media": kinds}

    def members(self, tokens: int, images: Mapping[str, Tensor]) -> Int[Tensor, "image_token"]:
        return images[MEMBERS] if MEMBERS in images else torch.zeros(tokens, dtype=torch.long)

    def features(self, base: Any, images: Mapping[str, Tensor]) -> Features:
        members = images[MEMBERS]
        joined: Tensor | None = None
        for number, name in enumerate(self.names):
            own = {key.removeprefix(f"{name}."): value for key, value in images.items() if key.startswith(f"{name}.")}
            if not own:
                continue
            encoder = base if number == 0 else base.encoders[name]
            part = super().features(encoder, own)["tokens"]
            joined = part.new_zeros(len(members), part.shape[-1]) if joined is None else joined
            joined = joined.masked_scatter((members == number)[:, None], part.to(joined.dtype))
        if joined is None:
            raise ValueError("no images to compute features of")
        return {"tokens": joined}


class ComposedProcessor:
    """The first member's template and tokenizer, and for each image the processor of its kind."""

    def __init__(self, processors: Mapping[str, Any], image_token_id: int) -> None:
        self._processors = dict(processors)
        self._image = image_token_id
        first = next(iter(processors.values()))
        self.tokenizer, self.chat_template, self.image_processor = (
            first.tokenizer,
            first.chat_template,
            first.image_processor,
        )

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> str:
        """Apply the first member's chat template."""
        text: str = next(iter(self._processors.values())).apply_chat_template(*args, **kwargs)
        return text

    def __call__(
        self, *, text: str, images: Sequence[Any] | None = None, media: Sequence[str] = (), **kwargs: Any
    ) -> dict[str, Any]:
        """Encode text and images: ids, the tensors of each kind as "KIND.NAME", and the member of each image token."""
        encoded = self.tokenizer(text, **kwargs)
        if not images:
            return dict(encoded)
        tensors: dict[str, Tensor] = {}
        counts = [0] * len(images)
        for name, processor in self._processors.items():
            own = [place for place, kind in enumerate(media) if kind == name]
            if own:
                processed, lengths = self._alone(processor, [images[place] for place in own])
                tensors |= {f"{name}.{key}": value for key, value in processed.items()}
                for place, length in zip(own, lengths, strict=True):
                    counts[place] = length
        ids, left = [], iter(counts)
        for token in encoded["input_ids"][0].tolist():
            ids += [token] * (next(left) if token == self._image else 1)
        owners = [list(self._processors).index(kind) for kind in media]
        members = torch.tensor(owners).repeat_interleave(torch.tensor(counts))
        return {"input_ids": torch.tensor([ids]), MEMBERS: members, **tensors}

    def _alone(self, processor: Any, images: list[Any]) -> tuple[dict[str, Tensor], list[int]]:
        """The output of a kind's processor for its images, and the number of image tokens of each."""
        token, between = self.tokenizer.convert_ids_to_tokens(self._image), "\n"
        processed = processor(
            text=between.join([token] * len(images)), images=images, add_special_tokens=False, return_tensors="pt"
        )
        lengths: list[int] = []
        last = -1
        for place in (processed["input_ids"][0] == self._image).nonzero()[:, 0].tolist():
            if place != last + 1 or not lengths:
                lengths.append(0)
            lengths[-1] += 1
            last = place
        tensors = {key: value for key, value in processed.items() if key not in ("input_ids", "attention_mask")}
        return tensors, lengths


def is_composed(path: str | Path) -> bool:
    """Whether a directory holds a composed model."""
    return (Path(path) / COMPOSED).is_file()


def load_members(path: Path, model: Any, processor: Any, dtype: torch.dtype) -> tuple[Any, Composed]:
    """Add the other encoders to `model`, loaded from the composed directory `path`; return its processor and family.

    Raises:
        InputError: `composed.json` or an encoder is missing or damaged.
    """
    names = member_names(path)
    processors, encoders = {names[0]: processor}, {}
    for name in names[1:]:
        folder = path / ENCODERS / name
        encoders[name] = _open_encoder(folder, dtype)
        processors[name] = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    attach_encoders(model, encoders)
    return ComposedProcessor(processors, int(model.config.image_token_id)), Composed(names)


def member_names(path: Path) -> tuple[str, ...]:
    """The kinds of media of a composed directory, in order.

    Raises:
        InputError: `composed.json` is damaged.
    """
    content = read_json(path / COMPOSED)
    names = list(content.get("members", ())) if isinstance(content, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path / COMPOSED} names no members; compose the model again")
    return tuple(names)


def attach_encoders(model: Any, encoders: Mapping[str, nn.Module]) -> None:
    """Add the encoders of further members to the model."""
    model.encoders = nn.ModuleDict(dict(encoders))


def decoder_name(model: Any) -> str:
    """The name of the language model within a model."""
    decoder = decoder_of(model)
    name: str = next(name for name, module in model.named_modules() if module is decoder)
    return name


def strip_language_model(model: Any) -> Any:
    """Remove language model and head, in place, leaving the part that turns images into features."""
    parent, _, last = decoder_name(model).rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    model.set_output_embeddings(nn.Identity())
    return model


def _open_encoder(folder: Path, dtype: torch.dtype) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder)
        weights = load_file(folder / ENCODER_WEIGHTS)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} holds no readable encoder ({str(error).splitlines()[0]}); compose the model again"
        ) from error
    small = copy.deepcopy(config)
    small.get_text_config().num_hidden_layers = 0  # built only to be discarded
    whole: Any = AutoModelForImageTextToText.from_config(small, dtype=dtype)  # type: ignore[no-untyped-call]
    model = strip_language_model(whole)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    wrong = next(iter([*missing, *unexpected]), None)
    if wrong is not None:
        raise InputError(f"{folder / ENCODER_WEIGHTS} does not fit its config.json ({wrong}); compose the model again")
    return model
