"""Config of a run's source: given pairs, the current policy's own, or a mixture of two such streams."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sightline.builders.bdhs import BDHSConfig
from sightline.builders.ranked import RankedConfig
from sightline.config import Config
from sightline.judges.length_control import JudgeConfig
from sightline.losses.types import Requirement
from sightline.train.rollout_backends import BackendConfig, LocalConfig


class OfflineConfig(Config):
    """The given pairs."""

    name: Literal["offline"] = Field(default="offline", description="selects this source")

    @property
    def lacks(self) -> frozenset[Requirement]:
        """Nothing that is known before the pairs are read."""
        return frozenset()


class OnlineConfig(Config):
    """Answers of the current policy, of which a judge chooses the best and the worst (arXiv 2407.02477, sec. 3.3).

    The paper samples two answers, compares them with a larger model, and does not state the temperature. Ties and
    answers without a verdict give no pair: the prompt is answered again up to `redraws` times, then up to `redraws`
    other prompts replace it, so that a mixture keeps its shares.
    """

    name: Literal["online"] = Field(description="selects this source")
    judge: JudgeConfig = Field(description="the judge that chooses the best and the worst answer")
    answers: int = Field(default=2, ge=2, description="answers sampled per prompt (the paper: 2)")
    choose: Literal["scores", "comparison"] = Field(
        default="scores",
        description="by the judge's scores, for any number of answers, or by showing it both answers at once, in both "
        "orders",
    )
    temperature: float = Field(default=1.0, gt=0, description="sampling temperature; the paper gives none")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="nucleus sampling: sample from the likeliest tokens whose probabilities sum to this; 1: from all "
        "tokens",
    )
    max_new_tokens: int = Field(default=256, gt=0, description="token limit of an answer")
    unfinished: bool = Field(default=False, description="accept chosen answers that max_new_tokens truncated")
    every: int = Field(
        default=1,
        ge=1,
        description="steps between refreshes; the answers to all prompts of these steps are sampled together, by the "
        "policy as of the first step",
    )
    redraws: int = Field(
        default=3,
        ge=0,
        description="after ties and answers without a verdict: attempts at the same prompt, then other prompts in its "
        "place",
    )
    engine: BackendConfig = Field(
        default=LocalConfig(), description="where answers are sampled: in the training process or on a server"
    )

    @model_validator(mode="after")
    def _check_answers(self) -> "OnlineConfig":
        if self.choose == "comparison" and self.answers != 2:
            raise ValueError("a comparison is between two answers; set source.answers=2, or choose=scores")
        return self

    @property
    def lacks(self) -> frozenset[Requirement]:
        """Needs of a loss that no pair of this stream meets."""
        return frozenset({Requirement.SPANS, Requirement.SECOND_REJECTED})

    def ranked(self) -> RankedConfig:
        """The same settings for the builder `ranked`: the best against the worst."""
        return RankedConfig(
            judge=self.judge,
            answers=self.answers,
            pairs="best-worst",
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            unfinished=self.unfinished,
            wave=2**20,  # all at once; the backend makes the batches
        )


class OnlineBDHSConfig(BDHSConfig):
    """BDHS by the current policy: chosen is the reference, rejected is generated with image tokens hidden.

    Source: arXiv 2407.02477. `every` and `redraws` as in `OnlineConfig`.
    """

    name: Literal["bdhs"] = Field(description="selects this source")
    average: bool = Field(
        default=False, description="add the given pair's rejected answer as the second one, for averaged DPO (eq. 5)"
    )
    every: int = Field(
        default=1, ge=1, description="steps between refreshes; the rejected answers of these steps are sampled together"
    )
    redraws: int = Field(
        default=3, ge=0, description="if no pair comes of a prompt: further attempts, then other prompts in its place"
    )

    @property
    def lacks(self) -> frozenset[Requirement]:
        """The same as `OnlineConfig.lacks`."""
        return frozenset({Requirement.SPANS} if self.average else {Requirement.SPANS, Requirement.SECOND_REJECTED})


StreamConfig = Annotated[OfflineConfig | OnlineConfig | OnlineBDHSConfig, Field(discriminator="name")]


class MixedConfig(Config):
    """A mixture of two streams: each example of each epoch is drawn from `first` or `second` at random."""

    name: Literal["mixed"] = Field(description="selects this source")
    p: float = Field(ge=0, le=1, description="probability of `first` for each example and epoch (Mixed-DPO: 0.5)")
    first: StreamConfig = Field(default=OfflineConfig(), description="the stream that is used with probability p")
    second: StreamConfig = Field(description="the stream that is used otherwise")

    @model_validator(mode="after")
    def _check_streams(self) -> "MixedConfig":
        if self.first.name == self.second.name:
            raise ValueError(f"both streams of the mixture are {self.first.name}; choose two kinds")
        own = [stream for stream in (self.first, self.second) if not isinstance(stream, OfflineConfig)]
        if len({(stream.every, stream.redraws) for stream in own}) > 1:
            raise ValueError("the streams of a mixture are drawn together; give both the same every and redraws")
        return self


SourceConfig = Annotated[OfflineConfig | OnlineConfig | OnlineBDHSConfig | MixedConfig, Field(discriminator="name")]


def list_streams(source: SourceConfig) -> tuple[StreamConfig, ...]:
    """The streams of a source, one or two."""
    return (source.first, source.second) if isinstance(source, MixedConfig) else (source,)
