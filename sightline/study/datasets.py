"""Samples and pairs in the config of a study: where they come from, with the settings of their builders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from sightline.config import Config, Seed
from sightline.data.hub import HUB_NAME, PACKAGE
from sightline.endpoint import GenerationServerConfig
from sightline.recipes.matching.steps import STEPS


def expand_keys(keys: object) -> object:
    """Keys with dots as sections, as on the command line: `{optim.lr: 1e-4}` is `{optim: {lr: 1e-4}}`."""
    if not isinstance(keys, Mapping):
        return keys
    expanded: dict[str, Any] = {}
    for key, value in keys.items():
        first, dot, rest = str(key).partition(".")
        section = expand_keys({rest: value}) if dot else value
        both = isinstance(section, Mapping) and isinstance(expanded.get(first), Mapping)
        expanded[first] = merged(expanded[first], section) if both else section  # type: ignore[arg-type]
    return expanded


#: Keys that override those of a config.
OverridingKeys = Annotated[dict[str, Any], BeforeValidator(expand_keys)]


class StudySettings(Config):
    """A config file and the keys that override it, in the structure of that config."""

    config: Path | None = Field(default=None, description="a YAML file with the settings; null: defaults")
    set: OverridingKeys = Field(
        default_factory=dict, description="keys that override it, in the structure of that config"
    )

    def with_keys(self, more: Mapping[str, Any]) -> "StudySettings":
        """A copy with further keys, which take precedence."""
        return self.model_copy(update={"set": merged(self.set, more)})


class CurateSpec(StudySettings):
    """`sightline curate` on samples, once per seed, since its reward models may differ by seed."""

    of: str = Field(description="the samples to curate")


class PackageSpec(Config):
    """Files from a Python package (`sightline fetch package`)."""

    name: str = Field(pattern=PACKAGE, description="package and version, NAME==VERSION")
    source: bool = Field(default=False, description="fetch the source distribution instead of the wheel")
    inside: str | None = Field(default=None, description="a folder in the package; null: all of it")
    file: str | None = Field(default=None, description="a file in that folder; null: the folder")


class MatchSpec(StudySettings):
    """A step of `sightline match`, applied to samples, or to files at `path` or in a `package`."""

    step: str = Field(description="the step of `sightline match`")
    of: str | None = Field(default=None, description="the samples that the step is applied to")
    path: Path | None = Field(default=None, description="files that the step is applied to")
    package: PackageSpec | None = Field(default=None, description="package whose files the step is applied to")
    per_seed: bool = Field(default=False, description="repeat the step for each seed")

    @model_validator(mode="after")
    def _one_place(self) -> "MatchSpec":
        if [self.of, self.path, self.package].count(None) != 2:
            raise ValueError("give exactly one of `of`, `path` and `package`")
        if self.step not in STEPS:
            raise ValueError(f"step: there is no {self.step!r}; known: {', '.join(STEPS)}")
        return self


class SamplesSpec(Config):
    """Images and prompts, from exactly one of `split` with `count`, `path`, `curate` and `match`."""

    split: str | None = Field(default=None, description="split of the lab that `count` scenes are drawn from")
    count: int | None = Field(default=None, ge=1, description="number of scenes")
    scenes: dict[str, Any] = Field(default_factory=dict, description="keys of the lab's scenes config to override")
    path: Path | None = Field(default=None, description="a samples directory")
    curate: CurateSpec | None = Field(default=None, description="the samples that `curate` keeps")
    match: MatchSpec | None = Field(default=None, description="the output of a step of `sightline match`")

    @model_validator(mode="after")
    def _one_origin(self) -> "SamplesSpec":
        drawn = self.split is not None and self.count is not None
        ways = [drawn, self.path is not None, self.curate is not None, self.match is not None]
        if ways.count(True) != 1 or (self.scenes and not drawn):
            raise ValueError("give exactly one of `split` with `count`, `path`, `curate` and `match`")
        return self


class FilesSpec(Config):
    """Files in a published layout (`sightline import`), at `path` or fetched from the dataset `hub`."""

    layout: str = Field(description="name of the published layout")
    path: Path | None = Field(default=None, description="directory of the files")
    hub: str | None = Field(
        default=None, pattern=HUB_NAME, description="hub dataset to fetch the files from, OWNER/NAME"
    )
    revision: str | None = Field(
        default=None, description="branch, tag or commit of the hub dataset; null: the current main branch"
    )
    inside: str | None = Field(default=None, description="file or folder of them to read; null: all")
    images: Path | None = Field(default=None, description="folder of the images; null: next to the files")
    skip_bad: bool = Field(default=False, description="drop and count rows that break the layout, instead of stopping")
    rows: int | None = Field(default=None, ge=1, description="approximate number of rows, used only by the estimate")

    @model_validator(mode="after")
    def _one_origin(self) -> "FilesSpec":
        if (self.path is None) == (self.hub is None) or (self.revision is not None and self.hub is None):
            raise ValueError("give either `path`, or `hub` with an optional `revision`")
        return self


class TakeSpec(Config):
    """A subset of a set of pairs."""

    of: str = Field(description="the set to take from")
    count: int = Field(ge=1, description="number of pairs")
    random_seed: Seed | None = Field(default=None, description="seed of a random draw; null: the first pairs")


class PairsSpec(StudySettings):
    """A set of pairs from exactly one of five sources."""

    builder: str | None = Field(default=None, description="the builder, applied to `samples`")
    samples: str | None = Field(
        default=None,
        description="the builder's samples, or other pairs of the study: their chosen answers are then the references",
    )
    path: Path | None = Field(default=None, description="a directory of pairs")
    files: FilesSpec | None = Field(
        default=None, description="pairs in a published layout; `set` has keys of `sightline import`"
    )
    take: TakeSpec | None = Field(default=None, description="a subset of another set")
    average: tuple[str, str] | None = Field(default=None, description="two sets on the same prompts, for averaged DPO")
    per_seed: bool = Field(default=True, description="build random pairs anew for each seed")
    endpoint: GenerationServerConfig | None = Field(default=None, description="server that answers for the model")

    @model_validator(mode="after")
    def _one_origin(self) -> "PairsSpec":
        ways = (self.builder, self.path, self.files, self.take, self.average)
        if sum(way is not None for way in ways) != 1 or (self.builder is None) != (self.samples is None):
            raise ValueError("give exactly one of `builder` with `samples`, `path`, `files`, `take` and `average`")
        if self.endpoint is not None and self.builder is None:
            raise ValueError("`endpoint` answers for the model of a `builder`; give one")
        return self

    @property
    def below(self) -> tuple[str, ...]:
        """The sets that this one is built from."""
        one = self.take.of if self.take is not None else self.samples
        return self.average or (() if one is None else (one,))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings merged; `above` wins. A section with a `name`, such as a loss, is replaced as a whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        inner = isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value
        result[key] = merged(old, value) if inner and isinstance(old, Mapping) else value
    return result
