"""Config of the training stage: small closed sections; the numbers that decide the science have no default.

Directories and the seed are arguments of the command. `run.train` takes this config; the table of losses defines the
parameters of a loss. `source` and `weights` hold further sections.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator

from sightline.builders.image_corruptions import get_corruption
from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, make_objective
from sightline.losses.table import LOSSES
from sightline.losses.types import Requirement
from sightline.models.spec import Dtype
from sightline.train.config.source import OfflineConfig, SourceConfig, list_streams
from sightline.train.config.weights import (
    GuardConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    ValidationConfig,
)
from sightline.train.monitors import TrainMonitorConfig
from sightline.train.rl.config import RLConfig
from sightline.train.scoring import Blind
from sightline.train.trackers import TrackingConfig

__all__ = ["LoraConfig", "LossConfig", "OptimizerConfig", "TrainConfig"]

#: Per need that a stream may not meet: what its pairs lack, and the remedy.
_UNMET_NEEDS = {
    Requirement.SECOND_REJECTED: (
        "no second rejected answer",
        "set average=true on a bdhs source, or train on given pairs",
    ),
    Requirement.SPANS: ("no correction spans", "train on given pairs that have them, or choose another loss"),
}


def _to_list(loss: object) -> object:
    return [loss] if isinstance(loss, Mapping | LossConfig) else loss


class TrainConfig(Config):
    """One training run, by `loss` from pairs or by `rl` from rewards.

    A step takes `batch_size` x `accumulation` pairs. Autocast is never chosen automatically, since its numbers differ
    slightly. `builders.image_corruptions` lists the corruptions for `weakened`; `train.scoring` uses `blind`.
    """

    loss: Annotated[tuple[LossConfig, ...] | None, BeforeValidator(_to_list)] = Field(
        default=None,
        description="one loss, or a list of losses each with its weight in the sum; the rewards shown are the first "
        "one's",
    )
    rl: RLConfig | None = Field(
        default=None,
        description="train by rewards instead of pairs; keys about pairs then apply to prompts with their answers",
    )
    optim: OptimizerConfig = Field(description="optimizer and learning rates")
    lora: LoraConfig | None = Field(
        default=LoraConfig(), description="the trained adapter; null: train language model, head and projector in full"
    )
    start: Path | None = Field(
        default=None,
        description="directory of an adapter with the same `lora` to continue from, as DPO does after supervised "
        "tuning; it is also the primary reference",
    )
    batch_size: int = Field(
        default=8, ge=1, description="pairs per micro-batch; a step takes batch_size x accumulation pairs"
    )
    accumulation: int = Field(default=1, ge=1, description="micro-batches per step")
    epochs: int | None = Field(default=None, ge=1, description="passes over the data; give this or max_steps")
    max_steps: int | None = Field(default=None, ge=1, description="optimizer steps; give this or epochs")
    pass_tokens: int | None = Field(
        default=None,
        ge=1,
        description="fewer than batch_size pairs are in memory at a time if that many of mean length exceed so many "
        "tokens; null: 2,048 on a CPU, 16,384 on a GPU or what fits its free memory (`models.memory`)",
    )
    max_length: int | None = Field(
        default=None,
        ge=1,
        description="drop and count pairs with an answer of more tokens, prompt and images included; null: only those "
        "that exceed the model's positions",
    )
    checkpoint_every: int = Field(default=20, ge=1, description="steps between checkpoints")
    device: str = Field(default="auto", description="where the run computes, as in ModelSpec")
    dtype: Dtype = Field(
        default="auto",
        description="number format of the frozen weights, as in ModelSpec, and of the trained ones without LoRA, for "
        "which auto is float32; an adapter is always float32",
    )
    autocast: bool = Field(
        default=False,
        description="run the forward pass in bfloat16: faster on a GPU and on a CPU with bfloat16 units, slower on "
        "other CPUs, with slightly different numbers",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="keep one tensor per layer and recompute the rest for the gradient: less memory, a third more "
        "computation, the same numbers; where it is not set, a GPU turns it on if only a small pass fits without it",
    )
    references: tuple[Path, ...] = Field(
        default=(),
        description="directories of adapters or models besides the primary reference, for losses with several",
    )
    weakened: str = Field(
        default="crop",
        description="the image corruption of mDPO's loss: crop (its own), blur, small, jitter, flip, gray, black, or "
        "noise-N for N diffusion steps",
    )
    blind: Blind = Field(
        default="none",
        exclude_if=lambda blind: blind == "none",
        description="what V-DPO's image-free side sees: no image, or an image of zeros",
    )
    shift_momentum: float | None = Field(
        default=None, ge=0, lt=1, description="momentum of BCO's running mean; null: the mean of all steps"
    )
    track: TrackingConfig | None = Field(default=None, description="also send the log to a tracker; null: no tracker")
    monitors: TrainMonitorConfig = Field(default=TrainMonitorConfig(), description="limits beyond which the run warns")
    source: SourceConfig = Field(
        default=OfflineConfig(), description="where pairs come from: given ones, the current policy's own, or a mixture"
    )
    validation: ValidationConfig | None = Field(
        default=None, description="hold out some pairs and keep the best weights; null: none"
    )
    guard: GuardConfig = Field(default=GuardConfig(), description="stop the run if the loss explodes")

    @field_validator("weakened")
    @classmethod
    def _check_view(cls, name: str) -> str:
        try:
            get_corruption(name)
        except InputError as error:
            raise ValueError(str(error)) from error
        return name

    @property
    def terms(self) -> tuple[Term, ...]:
        """The losses as terms of `losses.objective`; none with `rl`."""
        return tuple(loss.term for loss in self.loss or ())

    @field_serializer("loss")
    def _loss_as_written(
        self, losses: tuple[LossConfig, ...] | None
    ) -> dict[str, object] | list[dict[str, object]] | None:
        """Serialize a single loss as one mapping, so that a manifest matches the config as written."""
        if losses is None:
            return None
        mappings = [loss.model_dump(exclude_unset=True) for loss in losses]
        return mappings if len(mappings) > 1 else mappings[0]

    @field_validator("loss")
    @classmethod
    def _check_losses(cls, losses: tuple[LossConfig, ...] | None) -> tuple[LossConfig, ...] | None:
        if losses is None:
            return None
        terms = [loss.term for loss in losses]
        bare = [loss.name for loss in losses if "weight" not in loss.model_fields_set]
        if bare and len(losses) > 1:
            raise ValueError(f"loss.weight is missing: each of several losses needs one, and {bare[0]} has none")
        try:
            make_objective(terms)
        except InputError as error:
            raise ValueError(str(error)) from error
        return losses

    @model_validator(mode="after")
    def _check_objective(self) -> "TrainConfig":
        if (self.loss is None) == (self.rl is None):
            raise ValueError("give either loss, to learn from pairs, or rl, to learn from rewards, and not both")
        of_pairs = {
            "references": self.references,
            "validation": self.validation,
            "source": self.source.name != "offline",
        }
        given = [name for name, value in of_pairs.items() if value]
        if self.rl is not None and given:
            raise ValueError(f"{given[0]} is for pairs, and rl learns from rewards; remove it")
        return self

    @model_validator(mode="after")
    def _check_references(self) -> "TrainConfig":
        several = self.loss is not None and Requirement.REFERENCES in make_objective(self.terms).needs
        if several != bool(self.references):
            raise ValueError(
                "the loss needs several references and references is empty; give directories of adapters or models"
                if several
                else "references is given and no loss uses several references; remove it"
            )
        return self

    @model_validator(mode="after")
    def _check_blind(self) -> "TrainConfig":
        if self.blind != "none" and (self.loss is None or Requirement.NO_IMAGE not in make_objective(self.terms).needs):
            raise ValueError(f"blind is {self.blind} and no loss has a blind side; choose v-dpo, or remove it")
        return self

    @model_validator(mode="after")
    def _check_source(self) -> "TrainConfig":
        """Reject a stream all of whose pairs would be dropped, since they lack what the loss needs."""
        needs = make_objective(self.terms).needs if self.loss is not None else frozenset[Requirement]()
        for stream in list_streams(self.source):
            for need in sorted(needs & stream.lacks):
                names = [term.name for term in self.terms if need in make_objective([term]).needs]
                lack, remedy = _UNMET_NEEDS[need]
                raise ValueError(f"source: pairs of {stream.name} have {lack}, which {names[0]} needs; {remedy}")
        return self

    @model_validator(mode="after")
    def _check_projector(self) -> "TrainConfig":
        if self.optim.projector_lr is not None and self.lora is not None and not self.lora.train_projector:
            raise ValueError("optim.projector_lr is given and no projector is trained; set lora.train_projector=true")
        return self

    @model_validator(mode="after")
    def _check_start(self) -> "TrainConfig":
        if self.start is not None and self.lora is None:
            raise ValueError("start is an adapter to continue from, and lora=null trains none; merge it into the model")
        return self

    @property
    def compares(self) -> bool:
        """Whether the loss uses rejected answers; if not, the references of samples are enough."""
        return any(LOSSES[term.name].compares for term in self.terms)

    @model_validator(mode="after")
    def _check_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either epochs or max_steps, and not both (KEY=null unsets one)")
        return self
