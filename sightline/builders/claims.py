"""Divide and conquer: several answers, each split into claims, the claims asked yes or no (RLAIF-V, arXiv 2405.17220).

The work is `ranked`'s with the judge `claims`; what is its own is the choice of pairs: of all with a clear difference
those of the most equal length, since fewer claims are denied in shorter answers.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult
from sightline.builders.ranked import RankedConfig, ranked
from sightline.judges.claims import ClaimsJudgeConfig
from sightline.models.context import RunContext
from sightline.records import Sample


class DividedConfig(RankedConfig):
    """Settings of divide and conquer. The paper: 10 answers at the same settings, other seeds; how many pairs of one
    prompt are kept is its code's (2).
    """

    judge: ClaimsJudgeConfig
    answers: int = Field(default=10, ge=2, description="answers sampled to each prompt")
    pairs: Literal["best-worst", "all", "adjacent", "length-balanced"] = "length-balanced"
    most: int = Field(default=2, ge=1, description="pairs of one prompt")


def build_divided(samples: Iterable[Sample], tools: RunContext, config: DividedConfig) -> Iterator[BuildResult]:
    """Up to `most` pairs a sample, in order; a row depends on (sample, seed) and the judge alone."""
    return ranked(samples, tools, config, config.judge.open(tools), CLAIMS.name)


CLAIMS = Builder(
    name="claims",
    summary="Sample several answers and prefer those with fewer denied claims (RLAIF-V, arXiv 2405.17220).",
    config=DividedConfig,
    build=build_divided,
    remedy="sample more answers at a higher temperature, or ask about claims in another way",
)
