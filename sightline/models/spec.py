"""How a model is opened: the record that every command and config with a model takes, and where the model lies.

Nothing here imports torch; `opening.open_model` opens what the record describes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from sightline.config import Config, SparseConfig
from sightline.data.hub import HUB_NAME, FetchConfig, find_snapshot
from sightline.errors import InputError
from sightline.oracles import ORACLES, oracle_part
from sightline.records.manifest import ConfiguredInput, StageInput

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "nf4", "int8"]
DeviceMap = Literal["auto", "balanced", "sequential"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]

#: Settings that change a model's numbers by more than the rounding of another device; they identify a stage's run.
_IDENTIFYING = ("dtype", "quantize", "max_pixels", "min_pixels", "max_tiles", "attention")


class ModelOptions(SparseConfig):
    """How to open a model, whichever it is. Keys with their default are left out where the record is written."""

    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id; null is its main branch")
    adapter: Path | None = Field(default=None, description="PEFT adapter to load on the model, such as TRAIN/adapter")
    device: str = Field(default="auto", description="auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu")
    dtype: Dtype = Field(
        default="auto", description="number format of the weights; auto is the checkpoint's on a GPU, float32 on a CPU"
    )
    quantize: Quantization = Field(
        default="none", description="4 bits (nf4) or 8 (int8) for the language model's matrices; needs bitsandbytes"
    )
    device_map: DeviceMap | None = Field(
        default=None, description="spread the layers over all GPUs and, if these are full, the CPU's memory"
    )
    max_pixels: int | None = Field(
        default=None, ge=784, description="largest picture in pixels; larger ones are scaled down"
    )
    min_pixels: int | None = Field(
        default=None, ge=784, description="smallest picture in pixels, for processors that scale small ones up"
    )
    max_tiles: int | None = Field(default=None, ge=1, description="most tiles of a picture, for processors with tiles")
    attention: Attention = Field(
        default="auto", description="attention of the vision tower, and of rows that are computed one at a time"
    )
    trust_remote_code: bool = Field(
        default=False, description="run the checkpoint's own Python code, and open pickled weights"
    )

    @model_validator(mode="after")
    def _check_pixels(self) -> "ModelOptions":
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; lower it")
        return self

    def given(self) -> dict[str, Any]:
        """The options that are set, defaults included if they are written."""
        return {name: getattr(self, name) for name in ModelOptions.model_fields if name in self.model_fields_set}

    def identity(self) -> dict[str, Any]:
        """The settings that identify a run; empty for float32 weights that are opened as they are."""
        plain = {name: value for name, value in self.model_dump(mode="json").items() if name in _IDENTIFYING}
        return {name: value for name, value in plain.items() if (name, value) != ("dtype", "float32")}


ModelOptions.SPARSE = frozenset(ModelOptions.model_fields)


class ModelSpec(ModelOptions):
    """A model and how to open it; in a config, its name alone is enough.

    `name` is a directory, a GGUF file, a hub id such as `owner/name`, or the name of a world with a model of its own
    (`lab`).

    Example:
        >>> ModelSpec(name="llava-hf/llava-1.5-7b-hf", quantize="nf4")
    """

    name: str = Field(min_length=1, description="directory, GGUF file, hub id (owner/name), or lab")

    @property
    def place(self) -> Path:
        """The directory of the model; a hub id is looked up in the hub's cache and downloaded if it is not there.

        Raises:
            InputError: there is no such directory, or the hub has no such model or cannot be reached.
        """
        self.check_name()
        if not is_hub_id(self.name):
            return local_place(self.name)
        return find_snapshot(FetchConfig(type="model", hub=self.name, revision=self.revision))

    def check_name(self) -> None:
        """Check, without the network, that the name can be a model, and that the adapter's directory exists.

        Raises:
            InputError: it cannot, or it does not.
        """
        hub = is_hub_id(self.name)
        if not hub and not local_place(self.name).exists():
            raise InputError(f"model {self.name} does not exist; name a model directory or a hub id such as owner/name")
        if self.revision is not None and not hub:
            raise InputError(f"model {self.name} is a directory and has no revision {self.revision}; leave it out")
        if self.adapter is not None and not self.adapter.exists():
            raise InputError(f"adapter {self.adapter} does not exist; check the path, or run the training again")

    def inputs(self, role: str = "model", *, dtype: bool = True) -> dict[str, StageInput]:
        """The inputs of a stage that uses the model: its files, with the settings that change its numbers.

        Without `dtype` the number format is left out, for stages whose config holds it.
        """
        place, settings = self.place, self.identity()
        if not dtype:
            settings.pop("dtype", None)
        found: dict[str, StageInput] = {role: ConfiguredInput(place, settings) if settings else place}
        if self.adapter is not None:
            found["adapter" if role == "model" else f"{role}_adapter"] = self.adapter
        return found

    def with_options(self, options: Mapping[str, Any]) -> "ModelSpec":
        """A copy with other values of some keys, checked as in a config."""
        return ModelSpec.model_validate(dict(self) | dict(options))


def is_hub_id(name: str | Path) -> bool:
    """Whether a model's name is a hub id: `owner/name`, where no folder `owner` exists."""
    text = str(name)
    return re.fullmatch(HUB_NAME, text) is not None and not Path(text).parent.exists()


def local_place(name: str | Path) -> Path:
    """The directory or file of a name that is no hub id: a path, or the base model of a world such as `lab`."""
    if str(name) in ORACLES and not Path(name).exists():
        return Path(oracle_part(str(name), "base_model"))
    return Path(name)


def to_spec(model: "ModelSpec | str | Path") -> ModelSpec:
    """A model's name as a record with defaults; a record is returned unchanged."""
    return model if isinstance(model, ModelSpec) else ModelSpec(name=str(model))


def _from_name(value: object) -> object:
    return {"name": str(value)} if isinstance(value, str | Path) else value


def _shortest(spec: ModelSpec) -> object:
    plain = spec.model_dump(mode="json")
    return plain["name"] if set(plain) == {"name"} else plain


#: A model in a config: its name, or a mapping of `ModelSpec`. It is written as the name if nothing else is set.
ModelField = Annotated[ModelSpec, BeforeValidator(_from_name), PlainSerializer(_shortest)]


class ModelSection(Config):
    """The `model:` section of a config file whose command opens a model: keys of `ModelSpec`, the name optional."""

    model: dict[str, Any] = Field(default_factory=dict, description="how to open the model (keys of ModelSpec)")
