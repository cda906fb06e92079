"""Every judge's config, told apart by `name`: what a builder with a judge takes."""

from typing import Annotated

from pydantic import Field

from sightline.pairs.judges.length import LengthControlledJudgeConfig, PlainJudgeConfig

JudgeConfig = Annotated[PlainJudgeConfig | LengthControlledJudgeConfig, Field(discriminator="name")]
