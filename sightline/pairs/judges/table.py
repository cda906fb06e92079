"""Every judge's config, told apart by `name`: what a config with a judge in it takes."""

from typing import Annotated

from pydantic import Field

from sightline.pairs.judges.oracle import OracleJudgeConfig

JudgeConfig = Annotated[OracleJudgeConfig, Field(discriminator=None)]
