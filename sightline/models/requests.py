"""What is asked of a model: a prefix (images and prompt) with answers to score, or a prefix to continue.

Plain data, the seam between this room and those above it; `scorer` and `sampler` do the work.
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
    """The user's last turn and those before it: absolute image paths, texts; images stand as `records.Sample` says.

    `media` names the kind of each image for a composed model; empty is its first kind throughout. With `zeroed`, the
    processor's pixels of all images are replaced by zeros: the same image tokens, and nothing to see.
    """

    images: tuple[Path, ...]
    prompt: str
    history: tuple[Turn, ...] = ()
    media: tuple[str, ...] = ()
    zeroed: bool = False


def prefix_of(row: Sample | Pair, folder: Path) -> Prefix:
    """What a row asks, its images being relative to `folder`."""
    return Prefix(tuple(folder / image for image in row.images), row.prompt, row.history, row.media)


def without_pictures(prefix: Prefix) -> Prefix:
    """The same said without any image."""
    conversation_text = tuple(turn.model_copy(update={"text": _unmarked(turn.text)}) for turn in prefix.history)
    return Prefix((), _unmarked(prefix.prompt), conversation_text)


def _unmarked(text: str) -> str:
    return text.replace(f"{IMAGE}\n", "").replace(f"\n{IMAGE}", "").replace(IMAGE, "")


@dataclass(frozen=True)
class ScoreRequest:
    """One prefix with K answers, the unit of work of scoring and training (K = 2 for DPO)."""

    prefix: Prefix
    answers: tuple[str, ...]


@dataclass(frozen=True)
class GenerateRequest:
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
    """The continuation of one request; `finished` is False where `max_new_tokens` cut it off.

    `ids` are the sampled tokens themselves, with that which ended the turn: the text may be cut into others when it is
    read again.
    """

    text: str
    tokens: int
    finished: bool
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)


def conversation_text(prefix: Prefix) -> str:
    """The prompt, with the turns before it where there are any; pictures inside the text are `[picture 1]` and so on.

    Pictures that stand before everything else are not mentioned: the reader sees them there.

    Raises:
        InputError: the text has places for another number of images.
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
    """One answer to judge; `reference` and `truth` are what the sample knows, for judges that may look."""

    prefix: Prefix
    answer: str
    reference: str | None = None
    truth: dict[str, Any] = field(default_factory=dict)


def judge_input(sample: Sample, folder: Path, answer: str) -> JudgeInput:
    """An answer to a sample whose images are relative to `folder`."""
    return JudgeInput(prefix_of(sample, folder), answer, sample.reference, sample.truth)
