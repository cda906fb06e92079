"""The judge that is a dual encoder of pictures and text: CLIP, SigLIP or another that Transformers knows.

CLIPScore (Hessel et al. 2021, arXiv 2104.08718) is w * max(0, cos) with w = 2.5; here w = 100, as most tools have it
and as it reads best. It was made for captions of one sentence, so an answer's score is the mean over its sentences:
text encoders take some 64 to 77 tokens and would cut the rest off silently. Cosines of SigLIP are on another scale
than CLIP's; no two models' scores are comparable.
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
from sightline.data.sentences import split_sentences
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
    """100 * max(0, cosine) of picture and sentence, the mean over sentences and pictures; unscored without a picture.

    So is an answer with a sentence that the text encoder would cut.
    """

    name: Literal["clip"]
    model: Path = Field(description="directory of a dual encoder with its processor")
    batch_size: int = Field(default=64, gt=0, description="pictures, or sentences, in one pass")
    device: str = "cpu"

    def open(self, tools: RunContext) -> Judge:
        """The judge."""
        return _Clip(self, open_cache())


class _Clip:
    def __init__(self, config: ClipJudgeConfig, cache: TensorCache) -> None:
        self._config, self._cache = config, cache
        self._model, self._processor = _load(config.model, config.device)
        tokenizer, text = self._processor.tokenizer, self._model.config.text_config
        self._limit = min(tokenizer.model_max_length, text.max_position_embeddings)
        self.identity = hash_json(["clip", hash_tree(config.model), W, _DIGITS])

    def score(self, asked: Sequence[JudgeInput]) -> list[Verdict]:
        told = [[sentence.strip() for sentence in split_sentences(one.answer)] for one in asked]
        refusals = [self._refusal(one, sentences) for one, sentences in zip(asked, told, strict=True)]
        able = [(one, said) for one, said, refusal in zip(asked, told, refusals, strict=True) if not refusal]
        pictures = self._pictures([image for one, _ in able for image in one.prefix.images])
        sentences = _in_batches([said for _, all_said in able for said in all_said], self._text, self._config)
        scores = iter(
            _mean([pictures[image] for image in one.prefix.images], [sentences[sentence] for sentence in said])
            for one, said in able
        )
        return [Verdict(None, note=refusal) if refusal else Verdict(next(scores)) for refusal in refusals]

    def _refusal(self, one: JudgeInput, sentences: Sequence[str]) -> str:
        """Why an answer is unscored; empty where it is not."""
        if not one.prefix.images:
            return "no picture"
        if not sentences:
            return "empty answer"
        longest = max(len(self._processor.tokenizer(sentence)["input_ids"]) for sentence in sentences)
        return "" if longest <= self._limit else f"a sentence of {longest} tokens; the text encoder takes {self._limit}"

    def _pictures(self, paths: Sequence[Path]) -> dict[Path, Tensor]:
        """Unit vectors of pictures, kept on disk by the content of their files."""
        # The place counts too: another device or another torch has other last bits.
        keys = {
            path: content_key("clip", self.identity, hash_file(path), self._config.device, torch.__version__)
            for path in dict.fromkeys(paths)
        }
        kept = {path: self._cache.get(key) for path, key in keys.items()}
        made = _in_batches([path for path, found in kept.items() if found is None], self._look, self._config)
        for path, vector in made.items():
            self._cache.put(keys[path], {"vector": vector})
        return made | {path: found["vector"] for path, found in kept.items() if found is not None}

    def _look(self, paths: Sequence[Path]) -> Tensor:
        images = [open_image(path, f"image {path}") for path in paths]
        inputs = self._processor.image_processor(images=images, return_tensors="pt")
        return self._features(self._model.get_image_features, inputs)

    def _text(self, sentences: Sequence[str]) -> Tensor:
        # Padded to the limit, as SigLIP was trained; to others, whose tokenizers give a mask, that makes no difference.
        inputs = self._processor.tokenizer(
            list(sentences), padding="max_length", max_length=self._limit, return_tensors="pt"
        )
        return self._features(self._model.get_text_features, inputs)

    def _features(self, method: Callable[..., Any], inputs: Any) -> Tensor:
        taken = inspect.signature(method).parameters
        with torch.no_grad():
            made = method(**{name: value.to(self._model.device) for name, value in inputs.items() if name in taken})
        vectors: Tensor = made if isinstance(made, Tensor) else made.pooler_output
        return normalize(vectors.float(), dim=-1).cpu()


def _mean(pictures: Sequence[Tensor], sentences: Sequence[Tensor]) -> float:
    cosines = torch.stack([*pictures]).double() @ torch.stack([*sentences]).double().T
    return round(W * cosines.clamp(min=0).mean().item(), _DIGITS)


def _in_batches(
    items: Sequence[K], encode: Callable[[Sequence[K]], Tensor], config: ClipJudgeConfig
) -> dict[K, Tensor]:
    """A vector for each different item."""
    different = list(dict.fromkeys(items))
    found: dict[K, Tensor] = {}
    for start in range(0, len(different), config.batch_size):
        batch = different[start : start + config.batch_size]
        found |= zip(batch, encode(batch), strict=True)
    return found


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
        raise InputError(f"{path} is no dual encoder of pictures and text with its processor; name a CLIP or SigLIP")
    return model.to(device).eval(), processor
