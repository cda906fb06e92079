"""Judge that is a dual encoder of images and text: CLIP, SigLIP, or another that Transformers supports.

CLIPScore (Hessel et al. 2021, arXiv 2104.08718) is w * max(0, cos) with w = 2.5; here w = 100, as in most tools.
It was made for captions of one sentence, so an answer's score is the mean over its sentences: text encoders take 64 to
77 tokens and would silently cut off the rest. SigLIP's cosines are on another scale than CLIP's; scores of two models
are never comparable.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor

from sightline.config import Config
from sightline.data.images import open_image
from sightline.data.texts import split_sentences
from sightline.errors import InputError
from sightline.judges.judge import Judge, Verdict
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.models.tensor_cache import TensorCache, content_key, open_cache
from sightline.records import hash_file, hash_json
from sightline.records.hashing import hash_tree

K = TypeVar("K", str, Path)
W = 100.0
_DIGITS = 4  # the last bits of a cosine depend on the batch


class ClipJudgeConfig(Config):
    """100 * max(0, cosine) of image and sentence, averaged over sentences and images.

    Answers without an image, or with a sentence longer than the text encoder's limit, are unscored.
    """

    name: Literal["clip"] = Field(description="selects this judge")
    model: Path = Field(description="directory of a dual encoder with its processor")
    batch_size: int = Field(default=64, gt=0, description="images, or sentences, per forward pass")
    device: str = Field(default="cpu", description="cpu, cuda or another device of torch")

    def open(self, context: RunContext) -> Judge:
        """The judge."""
        return _Clip(self, open_cache())


class _Clip:
    def __init__(self, config: ClipJudgeConfig, cache: TensorCache) -> None:
        self._config, self._cache = config, cache
        self._model, self._processor = _load(config.model, config.device)
        tokenizer, text = self._processor.tokenizer, self._model.config.text_config
        self._limit = min(tokenizer.model_max_length, text.max_position_embeddings)
        self.identity = hash_json(["clip", hash_tree(config.model), W, _DIGITS])

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        split = [[sentence.strip() for sentence in split_sentences(one.answer)] for one in inputs]
        refusals = [self._refusal(one, sentences) for one, sentences in zip(inputs, split, strict=True)]
        able = [(one, parts) for one, parts, refusal in zip(inputs, split, refusals, strict=True) if not refusal]
        images = self._image_vectors([image for one, _ in able for image in one.prefix.images])
        sentences = _in_batches([sentence for _, parts in able for sentence in parts], self._encode_text, self._config)
        scores = iter(
            _mean([images[image] for image in one.prefix.images], [sentences[sentence] for sentence in parts])
            for one, parts in able
        )
        return [Verdict(None, note=refusal) if refusal else Verdict(next(scores)) for refusal in refusals]

    def _refusal(self, one: JudgeInput, sentences: Sequence[str]) -> str:
        """Return the reason why an answer is unscored, or an empty string."""
        if not one.prefix.images:
            return "no picture"
        if not sentences:
            return "empty answer"
        longest = max(len(self._processor.tokenizer(sentence)["input_ids"]) for sentence in sentences)
        return "" if longest <= self._limit else f"a sentence of {longest} tokens; the text encoder takes {self._limit}"

    def _image_vectors(self, paths: Sequence[Path]) -> dict[Path, Tensor]:
        """Unit vectors of images, cached on disk by file content."""
        # The key includes device and torch version: both change the last bits.
        keys = {
            path: content_key("clip", self.identity, hash_file(path), self._config.device, torch.__version__)
            for path in dict.fromkeys(paths)
        }
        cached = {path: self._cache.get(key) for path, key in keys.items()}
        encoded = _in_batches([path for path, hit in cached.items() if hit is None], self._encode_images, self._config)
        for path, vector in encoded.items():
            self._cache.put(keys[path], {"vector": vector})
        return encoded | {path: hit["vector"] for path, hit in cached.items() if hit is not None}

    def _encode_images(self, paths: Sequence[Path]) -> Tensor:
        images = [open_image(path, f"image {path}") for path in paths]
        inputs = self._processor.image_processor(images=images, return_tensors="pt")
        return self._features(self._model.get_image_features, inputs)

    def _encode_text(self, sentences: Sequence[str]) -> Tensor:
        # Pad to the limit, as SigLIP was trained; models whose tokenizer returns a mask are not affected.
        inputs = self._processor.tokenizer(
            list(sentences), padding="max_length", max_length=self._limit, return_tensors="pt"
        )
        return self._features(self._model.get_text_features, inputs)

    def _features(self, method: Callable[..., Any], inputs: Any) -> Tensor:
        accepted = inspect.signature(method).parameters
        with torch.no_grad():
            output = method(**{name: x.to(self._model.device) for name, x in inputs.items() if name in accepted})
        vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return normalize(vectors.float(), dim=-1).cpu()


def _mean(images: Sequence[Tensor], sentences: Sequence[Tensor]) -> float:
    cosines = torch.stack([*images]).double() @ torch.stack([*sentences]).double().T
    return round(W * cosines.clamp(min=0).mean().item(), _DIGITS)


def _in_batches(
    items: Sequence[K], encode: Callable[[Sequence[K]], Tensor], config: ClipJudgeConfig
) -> dict[K, Tensor]:
    """A vector for each distinct item."""
    distinct = list(dict.fromkeys(items))
    vectors: dict[K, Tensor] = {}
    for start in range(0, len(distinct), config.batch_size):
        batch = distinct[start : start + config.batch_size]
        vectors |= zip(batch, encode(batch), strict=True)
    return vectors


def _load(path: Path, device: str) -> tuple[Any, Any]:
    if not (path / "config.json").is_file():
        raise InputError(f"{path} is not a model directory: it has no config.json")
    try:
        model: Any = AutoModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True, local_files_only=True)
        processor: Any = AutoProcessor.from_pretrained(path, local_files_only=True)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"{path} cannot be opened as a dual encoder ({str(error).strip().splitlines()[0]})") from error
    parts = (getattr(processor, name, None) for name in ("image_processor", "tokenizer"))
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")) or None in parts:
        raise InputError(
            f"{path} is not a dual encoder of images and text with its processor; use a CLIP or SigLIP model"
        )
    return model.to(device).eval(), processor
