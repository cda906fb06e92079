"""Config of a run's source: given pairs, the current policy's own, or a mixture of two such streams."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sightline.builders.bdhs import BDHSConfig
from sightline.builders.ranked import RankedConfig
from sightline.config import Config
from sightline.judges.length_control import JudgeConfig
from sightline.losses.types import Need
from sightline.train.rollout_backends import BackendConfig, LocalConfig


class OfflineConfig(Config):
    """The given pairs."""

    name: Literal["offline"] = "offline"

    @property
    def lacks(self) -> frozenset[Need]:
        """Nothing that is known before the pairs are read."""
        return frozenset()


class OnlineConfig(Config):
    """Answers of the current policy, of which a judge chooses the best and the worst (arXiv 2407.02477, sec. 3.3).

    The paper samples two answers, compares them with a larger model, and does not state the temperature. `choose:
    comparison` shows both answers at once, in both orders, to a judge that can compare; `scores` uses its scores, for
    any number of answers. Ties and answers without a verdict give no pair: the prompt is answered again up to `redraws`
    times, then up to `redraws` other prompts replace it, so that a mixture keeps its shares. `every` is the number of
    steps between refreshes: the answers to all prompts of these steps are sampled together, by the policy as of the
    first step. `unfinished` accepts chosen answers that `max_new_tokens` truncated.
    """

    name: Literal["online"]
    judge: JudgeConfig
    answers: int = Field(default=2, ge=2)
    choose: Literal["scores", "comparison"] = "scores"
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=256, gt=0)
    unfinished: bool = False
    every: int = Field(default=1, ge=1)
    redraws: int = Field(default=3, ge=0)
    engine: BackendConfig = LocalConfig()

    @model_validator(mode="after")
    def _check_answers(self) -> "OnlineConfig":
        if self.choose == "comparison" and self.answers != 2:
            raise ValueError("a comparison is between two answers; set source.answers=2, or choose=scores")
        return self

    @property
    def lacks(self) -> frozenset[Need]:
        """Needs of a loss that no pair of this stream meets."""
        return frozenset({Need.SPANS, Need.SECOND_REJECTED})

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
    """BDHS by the current policy: chosen is the reference, rejected is made up by the policy (arXiv 2407.02477).

    With `average`, the given pair's rejected answer is the second one, for averaged DPO (eq. 5). `every` and `redraws`
    as in `OnlineConfig`.
    """

    name: Literal["bdhs"]
    average: bool = False
    every: int = Field(default=1, ge=1)
    redraws: int = Field(default=3, ge=0)

    @property
    def lacks(self) -> frozenset[Need]:
        """The same as `OnlineConfig.lacks`."""
        return frozenset({Need.SPANS} if self.average else {Need.SPANS, Need.SECOND_REJECTED})


StreamConfig = Annotated[OfflineConfig | OnlineConfig | OnlineBDHSConfig, Field(discriminator="name")]


class MixedConfig(Config):
    """A coin per example and epoch: `first` with probability `p`, else `second` (Mixed-DPO: 0.5)."""

    name: Literal["mixed"]
    p: float = Field(ge=0, le=1)
    first: StreamConfig = OfflineConfig()
    second: StreamConfig

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
