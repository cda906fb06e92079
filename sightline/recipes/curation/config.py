"""The config of `sightline curate`: two rankings with their shares, and whether what is kept is told in own words."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.judges.length_control import JudgeConfig
from sightline.writers.endpoint import WriterConfig


class RankingConfig(Config):
    """By what conversations are ranked, and the share that is kept (the paper: 0.3 twice, 9 % in the end).

    By a `judge` such as a reward model, or by people's `grades`; by neither the order is drawn, as a control.
    `keep_by_type` says another share for a type: conversation, detail, complex, as the samples' `task` has it.
    """

    judge: JudgeConfig | None = None
    grades: Path | None = None
    criteria: dict[str, float] = Field(default_factory=dict, description="weights of the grades' criteria; empty: all")
    keep: float = Field(gt=0, le=1)
    keep_by_type: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> "RankingConfig":
        if self.judge is not None and self.grades is not None:
            raise ValueError("give either judge or grades, and not both")
        for name, share in self.keep_by_type.items():
            if not 0 < share <= 1:
                raise ValueError(f"keep_by_type.{name} = {share:g} is no share above 0 and at most 1; correct it")
        return self


class RewriteConfig(Config):
    """Who tells kept answers in his own words, and who reviews them; a rewrite that is refused leaves the original."""

    writer: WriterConfig
    reviewer: WriterConfig | None = Field(default=None, description="null: the writer himself, as in the paper")


class CurateConfig(Config):
    """Two rankings, one behind the other; either may be left out (null)."""

    questions: RankingConfig | None
    answers: RankingConfig | None
    rewrite: RewriteConfig | None = None
    turns: Literal["every", "last"] = Field(
        default="every",
        description="samples of a kept conversation: of every answer, or of the last, the others before",
    )
    wave: int = Field(default=64, gt=0, description="questions or answers judged together")
