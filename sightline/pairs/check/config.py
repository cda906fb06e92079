"""The settings of a check: limits of pictures, when two things are alike, how many pairs are sampled, when to alarm."""

from pydantic import Field, model_validator

from sightline.config import Config


class CheckConfig(Config):
    """Settings of `sightline check`; the defaults are ours, chosen as docs/check.md says."""

    allow_remote: bool = Field(default=False, description="an address in place of an image is noted and not refused")
    min_side: int = Field(default=10, ge=1, description="pixels; a picture with a shorter side shows nothing")
    max_pixels: int = Field(default=89_478_485, gt=0, description="a larger picture is not opened; Pillow's own limit")
    image_distance: int = Field(
        default=4, ge=0, le=7, description="bits of 64 by which pHashes of like pictures differ"
    )
    text_distance: int = Field(default=3, ge=0, le=7, description="bits of 64 of the texts' sketches: 3 is Jaccard 0.9")
    sample: int = Field(default=20_000, ge=0, description="pairs, drawn at random, on which give-aways are looked for")
    prior_sample: int = Field(default=500, ge=0, description="pairs of which a model scores the text alone")
    batch_size: int = Field(default=8, gt=0, description="pairs that the model scores together")
    folds: int = Field(default=5, ge=2, description="of the cross-validation, split by cluster")
    resamples: int = Field(default=500, ge=100, description="of clusters, behind each interval")
    look: float = Field(default=0.6, gt=0.5, lt=1, description="AUC or share from which a give-away is to be looked at")
    bad: float = Field(default=0.75, gt=0.5, lt=1, description="and from which it is bad")

    @model_validator(mode="after")
    def _ordered(self) -> "CheckConfig":
        if self.look > self.bad:
            raise ValueError(f"look {self.look} must not lie above bad {self.bad}")
        return self
