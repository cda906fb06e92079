"""Requests to a model: a prefix (images and prompt) with answers to score, or a prefix to continue.

Plain data, the interface between this room and those above it; `scorer` and `sampler` process them.
"""

import re
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sightline.data.turns import messages, to_turns
from sightline.records.rows import IMAGE, Pair, Sample, Turn


@dataclass(frozen=True)
class Prefix:
    """A conversation up to and including the user's last turn, with absolute image paths.

    Images are placed as in `records.rows.Sample`. `media` names the kind of each image for a composed model; empty is
    its first kind for all. With `zeroed`, the processor's pixels are replaced by zeros; the number of image tokens is
    the same.
    """

    images: tuple[Path, ...]
    prompt: str
    history: tuple[Turn, ...] = ()
    media: tuple[str, ...] = ()
    zeroed: bool = False


def make_prefix(row: Sample | Pair, folder: Path) -> Prefix:
    """The prefix of a sample or a pair whose images are relative to `folder`."""
    return Prefix(tuple(folder / image for image in row.images), row.prompt, row.history, row.media)


def without_pictures(prefix: Prefix) -> Prefix:
    """The same conversation without images and image markers."""
    conversation_text = tuple(turn.model_copy(update={"text": _unmarked(turn.text)}) for turn in prefix.history)
    return Prefix((), _unmarked(prefix.prompt), conversation_text)


def _unmarked(text: str) -> str:
    return text.replace(f"{IMAGE}\n", "").replace(f"\n{IMAGE}", "").replace(IMAGE, "")


@dataclass(frozen=True)
class ScoreRequest:
    """A prefix with K answers to score, the unit of scoring and training (K = 2 for DPO)."""

    prefix: Prefix
    answers: tuple[str, ...]


@dataclass(frozen=True)
class GenerateRequest:
    """A prefix to continue.

    `prefill` opens the assistant's turn and is not part of the returned text. `hidden` lists image tokens (0-based, in
    order over the image tokens of the prefix) that are masked in every layer and head; rotary positions are unchanged.
    `seed` alone decides this row's sample, whatever the batch.
    """

    prefix: Prefix
    prefill: str = ""
    hidden: frozenset[int] = frozenset()
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; temperature 0 is greedy. A row ends after the first `stop` string, kept in the text."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """The continuation of one request; `finished` is False if `max_new_tokens` cut it off.

    `ids` are the sampled tokens, including the one that ended the turn; tokenizing the text may give other tokens.
    """

    text: str
    tokens: int
    finished: bool
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class FailedGeneration:
    """A request that a generator could not answer, and why; `may_pass` is True if it may succeed later."""

    note: str
    may_pass: bool = True


def conversation_text(prefix: Prefix) -> str:
    """The prompt, preceded by earlier turns if any; images inside the text become `[picture 1]` and so on.

    Images before all text are not mentioned: the reader sees them first anyway.

    Raises:
        InputError: the number of image markers differs from the number of images.
    """
    where = f"prompt {prefix.prompt[:60]!r}"
    history, prompt = to_turns(messages(prefix.history, prefix.prompt, len(prefix.images), where))
    turns = (*history, Turn(role="user", text=prompt))
    lines = (f"{turn.role.replace('-', ' ').capitalize()}: {turn.text}" for turn in turns)
    text = "\n".join(lines) if history else prompt
    number = count(1)
    return re.sub(re.escape(IMAGE), lambda _: f"[picture {next(number)}]", text)


@dataclass(frozen=True)
class JudgeInput:
    """An answer to judge, with the sample's `reference` and `truth` for judges that use them."""

    prefix: Prefix
    answer: str
    reference: str | None = None
    truth: dict[str, Any] = field(default_factory=dict)


def judge_input(sample: Sample, folder: Path, answer: str) -> JudgeInput:
    """The judge's input for an answer to a sample whose images are relative to `folder`."""
    return JudgeInput(make_prefix(sample, folder), answer, sample.reference, sample.truth)
