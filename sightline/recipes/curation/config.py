"""Config of `sightline curate`: two rankings with their shares, and optional rewriting of the kept answers."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.judges.length_control import JudgeConfig
from sightline.writers.endpoint import WriterConfig


class RankingConfig(Config):
    """A ranking of conversations, and the share that is kept (the paper: 0.3 twice, 9 % in the end).

    The ranking is by a `judge` or by human `grades`; without either, the order is random, as a control.
    """

    judge: JudgeConfig | None = Field(
        default=None, description="the judge to rank by, such as a reward model; null: `grades`, or a random order"
    )
    grades: Path | None = Field(default=None, description="file of human grades to rank by")
    criteria: dict[str, float] = Field(default_factory=dict, description="weights of the grades' criteria; empty: all")
    keep: float = Field(gt=0, le=1, description="share that is kept (the paper: 0.3 in each of two rankings)")
    keep_by_type: dict[str, float] = Field(
        default_factory=dict,
        description="another share for a type, by the samples' `task`: conversation, detail, complex",
    )

    @model_validator(mode="after")
    def _check_source(self) -> "RankingConfig":
        if self.judge is not None and self.grades is not None:
            raise ValueError("give either judge or grades, and not both")
        for name, share in self.keep_by_type.items():
            if not 0 < share <= 1:
                raise ValueError(f"keep_by_type.{name} = {share:g} is not a share above 0 and at most 1; correct it")
        return self


class RewriteConfig(Config):
    """The writer of kept answers, and their reviewer; a rejected rewrite leaves the original."""

    writer: WriterConfig = Field(description="the writer of kept answers")
    reviewer: WriterConfig | None = Field(default=None, description="null: the writer, as in the paper")


class CurateConfig(Config):
    """Two rankings in sequence; either may be omitted (null)."""

    questions: RankingConfig | None = Field(description="ranking of conversations by their questions; null: keep all")
    answers: RankingConfig | None = Field(description="ranking of the remaining ones by their answers; null: keep all")
    rewrite: RewriteConfig | None = Field(default=None, description="rewriting of kept answers; null: none")
    turns: Literal["every", "last"] = Field(
        default="every",
        description="samples per kept conversation: one for every answer, or one for the last answer",
    )
    wave: int = Field(default=64, gt=0, description="questions or answers judged together")
