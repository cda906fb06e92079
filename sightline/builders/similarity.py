"""Similarity of two answers, from 0 to 1: decides whether a BDHS answer is tried again.

`word_similarity` needs no download; the paper uses a sentence embedding (all-mpnet-base-v2), which any local
sentence-transformers model provides through the extra `[embed]`. Add further measures to `make_similarity`.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sightline.errors import InputError

_WORD = re.compile(r"\w+")
EMBEDDER = "sentence-transformers:"


class Similarity(Protocol):
    """Similarity of the i-th text of `a` and the i-th of `b`; 1 means equal."""

    def __call__(self, a: Sequence[str], b: Sequence[str]) -> list[float]: ...


def word_similarity(a: Sequence[str], b: Sequence[str]) -> list[float]:
    """Cosine of word counts, case folded. Ignores order and synonyms, but one changed noun always shows."""
    return [
        _cosine(Counter(_WORD.findall(x.lower())), Counter(_WORD.findall(y.lower()))) for x, y in zip(a, b, strict=True)
    ]


def make_similarity(name: str) -> Similarity:
    """Return `words`, or `sentence-transformers:DIRECTORY` for the cosine of a local model's embeddings."""
    if name == "words":
        return word_similarity
    if name.startswith(EMBEDDER):
        return _Embedding(name.removeprefix(EMBEDDER))
    raise InputError(f"similarity {name!r} is unknown; use 'words' or '{EMBEDDER}DIRECTORY'.")


class _Embedding:
    """Cosine of sentence embeddings (arXiv 2407.02477, sec. 3.4)."""

    def __init__(self, path: str) -> None:
        self._model = _embedder(path)

    def __call__(self, a: Sequence[str], b: Sequence[str]) -> list[float]:
        both = _encode(self._model, [*a, *b])
        return [float(x @ y) for x, y in zip(both[: len(a)], both[len(a) :], strict=True)]


def embed(path: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the vectors [text, dim], of length 1, of texts by a local sentence-transformers model.

    Raises:
        InputError: the extra is not installed.
    """
    return _encode(_embedder(path), texts)


def _embedder(path: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(f"similarity '{EMBEDDER}{path}' needs: pip install 'sightline[embed]'.") from error
    return SentenceTransformer(path, local_files_only=True)


def _encode(model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return vectors


def _cosine(a: Counter[str], b: Counter[str]) -> float:
    norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(v * b[k] for k, v in a.items()) / norm if norm else float(a == b)
