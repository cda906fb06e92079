"""What is asked of a model: a prefix (images and prompt) with answers to score, or a prefix to continue.

Plain data, the seam between this room and those above it; `scorer` and `sampler` do the work.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Prefix:
    """One user turn: absolute image paths and the prompt text."""

    images: tuple[Path, ...]
    prompt: str


@dataclass(frozen=True)
class Scored:
    """One prefix with K answers, the unit of work of scoring and training (K = 2 for DPO)."""

    prefix: Prefix
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """One prefix to continue.

    `prefill` opens the assistant's turn and is not part of the returned text. `hidden` lists image-token positions
    (0-based, counted over the image tokens of the prefix, in order) that every layer and head must not see; rotary
    positions stay as they were. `seed` decides this row's sample whatever batch it shares.
    """

    prefix: Prefix
    prefill: str = ""
    hidden: frozenset[int] = frozenset()
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How to continue: greedy at temperature 0. `stop` ends a row after the first of these strings (kept in text)."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """The continuation of one request; `finished` is False where `max_new_tokens` cut it off."""

    text: str
    tokens: int
    finished: bool
