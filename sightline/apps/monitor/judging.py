"""Judging a sample of answers for hallucination, with ground truth where the picture is known.

Ground truth comes from samples whose picture has the same bytes, such as lab scenes or an annotated dataset.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from sightline.config import Config
from sightline.data.request_log import picture_file
from sightline.data.samples import read_samples, samples_file
from sightline.judges.judge import Judge
from sightline.judges.length_control import JudgeConfig
from sightline.models.context import RunContext
from sightline.models.opening import open_model
from sightline.models.requests import JudgeInput, Prefix
from sightline.models.spec import ModelSpec
from sightline.records.hashing import hash_file
from sightline.records.ratings import LoggedRequest
from sightline.records.rows import Sample

#: A sample and the folder of its pictures.
Known = tuple[Sample, Path]


class SampledJudge(Config):
    """A judge for a sample of the answers; scores below a limit count as hallucinations."""

    judge: JudgeConfig = Field(description="the judge of the sampled answers")
    aspect: str = Field(default="", description="aspect of the verdict to use; empty: its score")
    below: float = Field(description="scores or aspects below this are hallucinations")
    share: float = Field(
        default=1.0, gt=0, le=1, description="share of answers to judge, drawn by the hash of their ids"
    )
    most: int = Field(default=500, gt=0, description="most answers judged per run of the command")
    batch_size: int = Field(default=32, gt=0, description="answers judged per batch")


@dataclass
class Truth:
    """Samples with ground truth, by the hashes of their pictures, and by these and the prompt."""

    by_pictures: dict[tuple[str, ...], Known] = field(default_factory=dict)
    by_prompt: dict[tuple[tuple[str, ...], str], Known] = field(default_factory=dict)

    @classmethod
    def read(cls, place: Path | None) -> "Truth":
        """Read a samples directory."""
        truth = cls()
        if place is not None:
            folder = samples_file(place).parent
            truth.add((sample, folder) for sample in read_samples(place))
        return truth

    def add(self, known: Iterable[Known]) -> None:
        """Add samples; the first one of a picture is used for other prompts."""
        for sample, folder in known:
            pictures = tuple(hash_file(folder / name) for name in sample.images)
            self.by_pictures.setdefault(pictures, (sample, folder))
            self.by_prompt.setdefault((pictures, sample.prompt), (sample, folder))

    def find(self, row: LoggedRequest) -> Known | None:
        """The sample of a row: with the same prompt if there is one, else with the same pictures."""
        pictures = tuple(picture.sha256 for picture in row.images)
        return self.by_prompt.get((pictures, row.prompt or "")) or self.by_pictures.get(pictures)


class Sampler:
    """Judges rows within a budget."""

    def __init__(self, config: SampledJudge, truth: Truth, model: ModelSpec | None, scratch: Path, seed: int) -> None:
        self._config, self._truth, self._seed, self._left = config, truth, seed, config.most
        policy = None if model is None else open_model(model)
        self._judge: Judge = config.judge.open(RunContext(Path(), scratch, seed, policy))
        self.identity = self._judge.identity
        self.unscored = 0

    def draw(self, rows: Sequence[LoggedRequest]) -> list[LoggedRequest]:
        """Draw the rows to judge by the hash of their ids, until the budget is used up."""
        drawn = [row for row in rows if row.answer is not None and row.prompt is not None and self._is_drawn(row.id)]
        drawn = drawn[: self._left]
        self._left -= len(drawn)
        return drawn

    def judge(self, rows: Sequence[LoggedRequest], log: Path | None) -> dict[str, float | None]:
        """1 for a hallucinating answer, 0 for another, None if it is unscored or its picture is missing.

        `log` is the directory with the rows' pictures; without it, only known samples are judged.
        """
        inputs = {row.id: one for row in rows if (one := self._judge_input(row, log)) is not None}
        results: dict[str, float | None] = {row.id: None for row in rows}
        ids, size = list(inputs), self._config.batch_size
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            verdicts = self._judge.score([inputs[key] for key in part])
            for key, verdict in zip(part, verdicts, strict=True):
                score = verdict.aspects.get(self._config.aspect) if self._config.aspect else verdict.score
                results[key] = None if verdict.score is None or score is None else float(score < self._config.below)
        self.unscored += sum(value is None for value in results.values())
        return results

    def renew(self) -> None:
        """Reset the budget; the baseline has a separate one."""
        self._left, self.unscored = self._config.most, 0

    def _is_drawn(self, key: str) -> bool:
        digest = hashlib.sha256(f"{self._seed}/judge/{key}".encode()).digest()
        return int.from_bytes(digest[:8], "little") < self._config.share * 2**64

    def _judge_input(self, row: LoggedRequest, log: Path | None) -> JudgeInput | None:
        known = self._truth.find(row)
        if known is not None:
            sample, folder = known
            images = tuple(folder / name for name in sample.images)
            # For another prompt the picture's truth applies, but not the reference.
            reference = sample.reference if sample.prompt == row.prompt else None
            truth = sample.truth
        else:
            if log is None or not (row.kept or not row.images):
                return None
            images, reference, truth = tuple(picture_file(log, one.sha256) for one in row.images), None, {}
            if not all(path.is_file() for path in images):
                return None
        return JudgeInput(Prefix(images, row.prompt or "", row.history or ()), row.answer or "", reference, truth)
