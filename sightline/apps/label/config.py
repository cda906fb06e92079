"""What raters are asked beside the choice itself."""

from typing import Self

from pydantic import Field, model_validator

from sightline.config import Config


class LabelConfig(Config):
    """Settings of a labels directory, fixed when it is made, so that all its rows answer the same questions."""

    criteria: tuple[str, ...] = Field(default=(), max_length=9, description="what each answer is graded by")
    lowest: int = Field(default=1, ge=0, le=8, description="the worst grade")
    highest: int = Field(default=5, ge=1, le=9, description="the best grade")
    marks: bool = Field(default=True, description="words that are not in the picture can be marked")
    corrections: bool = Field(default=True, description="an answer can be put right")
    limit: int | None = Field(default=None, ge=1, description="only the first so many items")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        if len(set(self.criteria)) < len(self.criteria) or not all(name.strip() for name in self.criteria):
            raise ValueError("criteria must have names, each another")
        return self
