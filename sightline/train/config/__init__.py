"""The config of the training stage: small closed sections, and no default for the numbers that decide the science.

Directories and the seed are arguments of the command and not in here. `run.train` takes this config; which parameters
a loss needs is asked of the table of losses. Each section is a file: `loss`, `weights`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator

from sightline.builders.image_corruptions import get_corruption
from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, make_objective
from sightline.losses.table import LOSSES
from sightline.losses.types import Need
from sightline.train.config.source import OfflineConfig, SourceConfig, streams_of
from sightline.train.config.weights import (
    SUPPLIED,
    GuardConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    ValidationConfig,
)
from sightline.train.monitors import TrackingConfig, TrainMonitorConfig
from sightline.train.rl.config import RLConfig
from sightline.train.scoring import Blind

__all__ = ["SUPPLIED", "LoraConfig", "LossConfig", "OptimizerConfig", "TrainConfig"]

#: Of a need that streams may lack: what their pairs have not, and the remedy.
_LACKING = {
    Need.SECOND_REJECTED: ("no second rejected answer", "set average=true on a bdhs source, or train on given pairs"),
    Need.SPANS: ("no correction spans", "train on given pairs that have them, or choose another loss"),
}


def _as_list(loss: object) -> object:
    return [loss] if isinstance(loss, Mapping | LossConfig) else loss


class TrainConfig(Config):
    """One training run.

    `loss` is one loss or a list of several, each with its `weight` in the sum; the rewards shown are the first one's.
    Instead of it, `rl` trains by rewards, and what is said of pairs holds for prompts with their answers.
    A step takes `batch_size` x `accumulation` pairs. At most `batch_size` of them are in memory at a time, and fewer
    where so many pairs of mean length hold more than `pass_tokens` tokens (2,048 on a CPU, 16,384 on a GPU). Give
    either `epochs` or `max_steps`. Pairs with an answer of more than `max_length` tokens, prompt and images included,
    are dropped and counted, as are those that exceed the model's positions.

    `start` is an adapter of the same `lora` to go on from, as DPO does from supervised tuning; it is then the primary
    reference too. `lora: null` trains language model, head and projector in full. `dtype` is that of the frozen
    weights, and of the trained ones without LoRA; an adapter is float32 always. `autocast` runs the forward in
    bfloat16: faster on a GPU and on a CPU with bfloat16 units, slower on other CPUs, and a little different in its
    numbers, so nothing guesses it. `activation_checkpointing` keeps one tensor a layer and computes the rest again for
    the gradient: less memory, a third more work, the same numbers. `checkpoint_every` is in steps.

    `references` are directories of adapters or models beside the primary reference, for losses with several.
    `weakened` is the corrupted image (`builders.image_corruptions`) of mDPO's loss, `blind` what V-DPO's blind side
    is shown instead of the image (`train.scoring`). `shift_momentum` makes BCO's running mean forget; null is the
    mean of all steps. `track` shows the log in a tracker besides; `monitors` are the limits beyond which the run warns.
    `source` says where pairs come from, `validation` holds some out, and `guard` stops a loss that explodes.
    """

    loss: Annotated[tuple[LossConfig, ...] | None, BeforeValidator(_as_list)] = None
    rl: RLConfig | None = None
    optim: OptimizerConfig
    lora: LoraConfig | None = LoraConfig()
    start: Path | None = None
    batch_size: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    pass_tokens: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=20, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    autocast: bool = False
    activation_checkpointing: bool = False
    references: tuple[Path, ...] = ()
    weakened: str = "crop"
    blind: Blind = Field(default="none", exclude_if=lambda blind: blind == "none")
    shift_momentum: float | None = Field(default=None, ge=0, lt=1)
    track: TrackingConfig | None = None
    monitors: TrainMonitorConfig = TrainMonitorConfig()
    source: SourceConfig = OfflineConfig()
    validation: ValidationConfig | None = None
    guard: GuardConfig = GuardConfig()

    @field_validator("weakened")
    @classmethod
    def _is_a_view(cls, name: str) -> str:
        try:
            get_corruption(name)
        except InputError as error:
            raise ValueError(str(error)) from error
        return name

    @property
    def terms(self) -> tuple[Term, ...]:
        """The losses in the terms of their room; none with `rl`."""
        return tuple(loss.term for loss in self.loss or ())

    @field_serializer("loss")
    def _as_told(self, losses: tuple[LossConfig, ...] | None) -> dict[str, object] | list[dict[str, object]] | None:
        """One loss as one mapping, so that a manifest reads, and is compared, as the config was written."""
        if losses is None:
            return None
        told = [loss.model_dump(exclude_unset=True) for loss in losses]
        return told if len(told) > 1 else told[0]

    @field_validator("loss")
    @classmethod
    def _goes_together(cls, losses: tuple[LossConfig, ...] | None) -> tuple[LossConfig, ...] | None:
        if losses is None:
            return None
        terms = [loss.term for loss in losses]
        bare = [loss.name for loss in losses if "weight" not in loss.model_fields_set]
        if bare and len(losses) > 1:
            raise ValueError(f"loss.weight is missing: of several losses, each needs one, and {bare[0]} has none")
        try:
            lacking = make_objective(terms).needs - SUPPLIED
        except InputError as error:
            raise ValueError(str(error)) from error
        if lacking:
            raise ValueError(f"training cannot give a loss its {', '.join(sorted(lacking))} yet; choose another loss")
        return losses

    @model_validator(mode="after")
    def _one_aim(self) -> "TrainConfig":
        if (self.loss is None) == (self.rl is None):
            raise ValueError("give either loss, to learn from pairs, or rl, to learn from rewards, and not both")
        of_pairs = {
            "references": self.references,
            "validation": self.validation,
            "source": self.source.name != "offline",
        }
        given = [name for name, value in of_pairs.items() if value]
        if self.rl is not None and given:
            raise ValueError(f"{given[0]} is for pairs, and rl learns from rewards; leave it out")
        return self

    @model_validator(mode="after")
    def _several_references(self) -> "TrainConfig":
        several = self.loss is not None and Need.REFERENCES in make_objective(self.terms).needs
        if several != bool(self.references):
            raise ValueError(
                "the loss compares with several references and references names none; give directories of adapters or "
                "models"
                if several
                else "references names some and no loss compares with several; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _blind_side_is_needed(self) -> "TrainConfig":
        if self.blind != "none" and (self.loss is None or Need.BLIND not in make_objective(self.terms).needs):
            raise ValueError(f"blind is {self.blind} and no loss has a blind side; choose v-dpo, or leave it out")
        return self

    @model_validator(mode="after")
    def _source_serves_the_loss(self) -> "TrainConfig":
        """A stream whose pairs all lack what the loss needs would be made, dropped pair by pair, and end in nothing."""
        needs = make_objective(self.terms).needs if self.loss is not None else frozenset[Need]()
        for stream in streams_of(self.source):
            for need in sorted(needs & stream.lacks):
                names = [term.name for term in self.terms if need in make_objective([term]).needs]
                lack, remedy = _LACKING[need]
                raise ValueError(f"source: pairs of {stream.name} have {lack}, which {names[0]} needs; {remedy}")
        return self

    @model_validator(mode="after")
    def _projector_is_trained(self) -> "TrainConfig":
        if self.optim.projector_lr is not None and self.lora is not None and not self.lora.train_projector:
            raise ValueError("optim.projector_lr is given and no projector is trained; set lora.train_projector=true")
        return self

    @model_validator(mode="after")
    def _starts_an_adapter(self) -> "TrainConfig":
        if self.start is not None and self.lora is None:
            raise ValueError("start is an adapter to go on from, and lora=null trains none; merge it into the model")
        return self

    @property
    def compares(self) -> bool:
        """Whether rejected answers are learned from; without, the references of samples are enough."""
        return any(LOSSES[term.name].compares for term in self.terms)

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either epochs or max_steps, and not both (KEY=null takes one back)")
        return self
