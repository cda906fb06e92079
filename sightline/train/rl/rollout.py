"""Rollouts: what the policy said to a prompt, token by token, with all that a step needs to learn from it.

Plain frozen rows, so that those which wait to be drawn go into a checkpoint. Who makes them is `sampling` and `credit`.
"""

from pathlib import Path

from sightline.models.packing import Ids
from sightline.models.prompts import Prefix
from sightline.records.rows import Row, Turn


class Said(Row):
    """One answer: its tokens as they were sampled, with the end of its turn unless it was cut off.

    `score` is the judge's, as it said it; `reward` is what counts: scaled, less the penalty of the unfinished, before
    any KL. Numbers by token are those of the moment of sampling: log-probs (nats) of policy and reference, advantages,
    and, with a value head, values and the returns that it learns.
    """

    ids: Ids
    finished: bool
    score: float
    reward: float
    logps: tuple[float, ...] = ()
    ref_logps: tuple[float, ...] = ()
    advantages: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()


class Rollout(Row):
    """A prompt, its image paths absolute, with the answers to it that were scored."""

    sample_id: str
    images: tuple[str, ...]
    media: tuple[str, ...] = ()
    history: tuple[Turn, ...]
    prompt: str
    answers: tuple[Said, ...]

    @property
    def prefix(self) -> Prefix:
        """What was asked."""
        return Prefix(tuple(map(Path, self.images)), self.prompt, self.history, self.media)

    @property
    def tokens(self) -> int:
        """The tokens of all answers."""
        return sum(len(answer.ids) for answer in self.answers)
