"""Divide and conquer: sample several answers, split them into claims, and check each claim (RLAIF-V, arXiv 2405.17220).

`build_with_judge` does the work with the judge `claims`. Of all pairs with a clear difference, those of most equal
length are taken, since shorter answers have fewer denied claims.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult
from sightline.builders.ranked import RankedConfig, build_with_judge
from sightline.judges.claims import ClaimsJudgeConfig
from sightline.models.context import RunContext
from sightline.records import Sample


class ClaimsConfig(RankedConfig):
    """Settings of divide and conquer. The paper: 10 answers with the same settings and different seeds; how many pairs
    of one prompt are kept is from its code (2).
    """

    judge: ClaimsJudgeConfig = Field(description="the judge that splits answers into claims and checks each")
    answers: int = Field(default=10, ge=2, description="answers sampled per prompt")
    pairs: Literal["best-worst", "all", "adjacent", "length-balanced"] = Field(
        default="length-balanced",
        description="best with worst, any two, neighbors by score, or those of most equal length (the paper's)",
    )
    most: int = Field(default=2, ge=1, description="maximum pairs per prompt")


def build_claims(samples: Iterable[Sample], context: RunContext, config: ClaimsConfig) -> Iterator[BuildResult]:
    """Yield up to `most` pairs per sample, in order; a row depends on (sample, seed) and the judge alone."""
    return build_with_judge(samples, context, config, config.judge.open(context), CLAIMS.name)


CLAIMS = Builder(
    name="claims",
    summary="Sample several answers and prefer those with fewer denied claims (RLAIF-V, arXiv 2405.17220).",
    config=ClaimsConfig,
    build=build_claims,
    remedy="sample more answers at a higher temperature, or change the judge's question",
)
