"""Config of `sightline compose`: the models, and how and with which weights their adapters are merged.

Directories are in the config and not arguments of the command, since their number varies. `run.compose` takes it.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from sightline.config import Config
from sightline.models.spec import ModelField

#: Name of a merge -> its name in PEFT's `add_weighted_adapter`. `cat` is the exact weighted sum of the changes; PEFT's
#: "linear" sums the low-rank factors, which gives another matrix. The others work on full changes.
MERGES = {
    "linear": "cat",
    "ties": "ties_svd",
    "dare_linear": "dare_linear_svd",
    "dare_ties": "dare_ties_svd",
    "magnitude_prune": "magnitude_prune_svd",
}
NAME = re.compile(r"[a-z][a-z0-9-]{2,30}")
RESERVED = frozenset({"default", "modality", "adapter", "encoders", "members", "lora", "ora"})
MAX_TRIALS = 512


class MemberConfig(Config):
    """A model of one kind of media, and the adapter that trained its language model on that kind."""

    model: ModelField = Field(description="a name, or a mapping of ModelSpec")
    adapter: Path | None = Field(
        default=None,
        description="adapter that trained its language model on this kind; null: the member contributes only its "
        "encoder",
    )


class SearchConfig(Config):
    """Search of weights by validation: every combination of `values`, one per adapter, is tried on `samples`.

    The combination with the greatest mean over samples of the reference answer's log-prob a token wins; of equals, the
    first.
    """

    samples: Path = Field(description="directory of validation samples with references")
    values: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0),
        description="candidate weights; every combination, one value per adapter, is tried",
    )
    limit: int | None = Field(default=None, ge=1, description="use the first so many samples; null: all")
    batch_size: int = Field(default=16, ge=1, description="samples scored together")


class ComposeConfig(Config):
    """One composed model: encoders of several kinds of media, and one language model with merged adapters."""

    members: dict[str, MemberConfig] = Field(min_length=2, description="kind of media in the rows -> its model")
    merge: Literal["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"] = Field(
        default="linear", description="how the language model's adapters are merged (PEFT's names)"
    )
    weights: tuple[float, ...] | None = Field(
        default=None, description="one weight per adapter; null: equal weights that sum to 1 over all members"
    )
    search: SearchConfig | None = Field(
        default=None, description="search of the weights on validation samples; null: none"
    )
    density: float | None = Field(
        default=None, gt=0, lt=1, description="share of a change that the pruning merges keep"
    )
    rank: int | None = Field(
        default=None, ge=1, description="rank of a pruning merge's result; null: the sum of the members' ranks"
    )
    decoupled: bool = Field(
        default=False,
        description="each kind's image tokens use its own member's adapter, all others the merged one (DAMC); off: the "
        "merged adapter serves all tokens (NaiveMC)",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="precision of the written weights"
    )

    @field_validator("members")
    @classmethod
    def _check_names(cls, members: dict[str, MemberConfig]) -> dict[str, MemberConfig]:
        wrong = next((name for name in members if not NAME.fullmatch(name) or name in RESERVED), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} cannot name a kind of media; use three or more lower-case letters")
        return members

    @model_validator(mode="after")
    def _check_weights(self) -> "ComposeConfig":
        if self.weights is not None and self.search is not None:
            raise ValueError("weights and search are both given; remove one")
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(f"weights has {len(self.weights)} numbers and there are {len(self.members)} members")
        if (self.density is None) != (self.merge == "linear"):
            raise ValueError(f"merge={self.merge} {'takes no' if self.merge == 'linear' else 'needs a'} density")
        if self.search is not None and len(self.search.values) ** len(self.adapted) > MAX_TRIALS:
            raise ValueError(f"search would try more than {MAX_TRIALS} combinations; give it fewer values")
        if (self.search or self.weights) and not self.adapted:
            raise ValueError("no member has an adapter, so there is nothing to weight; remove weights and search")
        return self

    @property
    def adapted(self) -> tuple[str, ...]:
        """The members with an adapter."""
        return tuple(name for name, member in self.members.items() if member.adapter is not None)

    @property
    def given_weights(self) -> tuple[float, ...]:
        """The weights of the members with an adapter."""
        weights = self.weights or (1 / len(self.members),) * len(self.members)
        return tuple(weight for name, weight in zip(self.members, weights, strict=True) if name in self.adapted)
