"""What a study is told: samples, pairs, arms, seeds and benchmarks, in one closed YAML file.

Every number that decides the science stands in the file or in the config files that it names. What is to be done
follows in `plan`; nothing is opened here but those files.
"""

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from sightline.config import Config, Seed
from sightline.data.hub import HUB_NAME, PACKAGE
from sightline.recipes.matching.steps import STEPS
from sightline.study.claims import ClaimSpec
from sightline.study.names import check_names, refuse_ring

#: The model that ships with Sightline.
LAB = "lab"

#: The untrained model, where it is named among the arms.
BASE = "base"


class StudySettings(Config):
    """A config file and the keys that differ from it, as a mapping of the config's own form."""

    config: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict)

    def with_keys(self, more: Mapping[str, Any]) -> "StudySettings":
        """The same with further keys, which win."""
        return self.model_copy(update={"set": merged(self.set, more)})


class CurateSpec(StudySettings):
    """`sightline curate` at work on the samples `of` that name, for each seed anew, as its reward models may be."""

    of: str


class PackageSpec(Config):
    """Files that ship in a Python package (`sightline fetch package`): NAME==VERSION, and what is meant of it.

    `inside` is a folder in it, `file` one of that folder's files.
    """

    name: str = Field(pattern=PACKAGE)
    source: bool = False
    inside: str | None = None
    file: str | None = None


class MatchSpec(StudySettings):
    """A step of `sightline match`: of the samples `of` another name, or of files at `path` or in a `package`.

    `per_seed` does a step that draws anew for each seed.
    """

    step: str
    of: str | None = None
    path: Path | None = None
    package: PackageSpec | None = None
    per_seed: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> "MatchSpec":
        if [self.of, self.path, self.package].count(None) != 2:
            raise ValueError("give either of, or path, or package")
        _known(self.step, STEPS, "step")
        return self


class SamplesSpec(Config):
    """Images and prompts: `count` scenes of one of the lab's splits, a samples directory of your own at `path`, what
    `curate` keeps of other samples, or what a step of `match` makes.
    """

    split: str | None = None
    count: int | None = Field(default=None, ge=1)
    scenes: dict[str, Any] = Field(default_factory=dict, description="keys of the lab's scenes that differ")
    path: Path | None = None
    curate: CurateSpec | None = None
    match: MatchSpec | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "SamplesSpec":
        drawn = self.split is not None and self.count is not None
        ways = [drawn, self.path is not None, self.curate is not None, self.match is not None]
        if ways.count(True) != 1 or (self.scenes and not drawn):
            raise ValueError("give either split and count, or path, or curate, or match")
        return self


class FilesSpec(Config):
    """Files of a published layout (`sightline import`): at `path`, or to be fetched from the hub's data set `hub`.

    `inside` is the file or folder of them that is meant; images are below `images`, or beside the files. `rows` is
    about how many there are, for the plan alone.
    """

    layout: str
    path: Path | None = None
    hub: str | None = Field(default=None, pattern=HUB_NAME)
    revision: str | None = None
    inside: str | None = None
    images: Path | None = None
    skip_bad: bool = False
    rows: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_origin(self) -> "FilesSpec":
        if (self.path is None) == (self.hub is None) or (self.revision is not None and self.hub is None):
            raise ValueError("give either path, or hub and perhaps its revision")
        return self


class TakeSpec(Config):
    """`count` of the pairs `of` another set: the first ones, or drawn by `random_seed`."""

    of: str
    count: int = Field(ge=1)
    random_seed: Seed | None = None


class PairsSpec(StudySettings):
    """A set of pairs, in one of five ways; `per_seed` makes those that draw anew for each seed.

    A `builder` at work on `samples`, which may name other pairs of the study: their chosen answers are then the
    references. A directory of pairs at `path`. Published `files` (`set` has keys of `sightline import`). Some of
    another set, `take`. The `average` of two sets on the same prompts, for averaged DPO.
    """

    builder: str | None = None
    samples: str | None = None
    path: Path | None = None
    files: FilesSpec | None = None
    take: TakeSpec | None = None
    average: tuple[str, str] | None = None
    per_seed: bool = True

    @model_validator(mode="after")
    def _one_origin(self) -> "PairsSpec":
        ways = (self.builder, self.path, self.files, self.take, self.average)
        if sum(way is not None for way in ways) != 1 or (self.builder is None) != (self.samples is None):
            raise ValueError("give either builder and samples, or path, or files, or take, or average")
        return self

    @property
    def below(self) -> tuple[str, ...]:
        """The sets that this one is made of."""
        one = self.take.of if self.take is not None else self.samples
        return self.average or (() if one is None else (one,))


class EqualSpec(Config):
    """What arms are to get in equal measure: the first so many `pairs` of their set, or prompts of their samples."""

    pairs: int | None = Field(default=None, ge=1)


class ArmSpec(Config):
    """One way to train, by what it changes: the pairs, the prompts for online answers, keys of the training config.

    `config` is a file in place of all that the study's `train` says, for an arm of another kind, such as RL. A value
    that says `${pairs.NAME}`, `${samples.NAME}`, `${train.ARM}` or `${adapter.ARM}` stands for that directory, of the
    same seed. An arm with `measured: false` serves others, as a reward model does, and is not evaluated.
    """

    pairs: str | None = None
    samples: str | None = None
    config: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    measured: bool = True

    def over(self, below: "ArmSpec") -> "ArmSpec":
        """This arm's choices where it makes any, those `below` elsewhere."""
        return ArmSpec(
            pairs=self.pairs or below.pairs,
            samples=self.samples or below.samples,
            config=self.config or below.config,
            set=merged(below.set, self.set),
            measured=self.measured and below.measured,
        )


class ModelSpec(Config):
    """A model that arms start from: `path` is `lab` or a directory, `hub` the name of one that is to be fetched, or a
    `package` that has one inside.

    `set` has keys of the training config that are this model's own, such as LoRA's targets; `pairs` has keys of
    builders, by the name of the set of pairs.
    """

    path: str | None = None
    hub: str | None = Field(default=None, pattern=HUB_NAME)
    revision: str | None = None
    package: PackageSpec | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    pairs: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSpec":
        ways = [self.path, self.hub, self.package]
        if ways.count(None) != 2 or (self.revision is not None and self.hub is None):
            raise ValueError("give either path, or hub and perhaps its revision, or package")
        return self

    @classmethod
    def named(cls, model: str) -> "ModelSpec":
        """The model of the short form: a name of the hub's where there is no such folder, as with `sightline eval`."""
        is_hub_name = re.fullmatch(HUB_NAME, model) is not None and not Path(model).parent.exists()
        return cls(hub=model) if is_hub_name else cls(path=model)


class EvaluateSpec(Config):
    """Benchmarks, asked of the base and of every arm alike; `validation` asks of scenes on which one may choose.

    `judge` (the form of `sightline eval --judge`) grades open answers; `data` and `images` are the folders of official
    files and of their pictures. `samples` are those of the study that a benchmark asks, in the place of `data`.
    """

    benchmarks: tuple[str, ...] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    validation: bool = False
    autocast: bool = False
    batch_size: int = Field(default=64, ge=1)
    data: Path | None = None
    images: Path | None = None
    samples: str | None = None
    dtype: str | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    judge: dict[str, Any] | None = None

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, without what says where files are or how fast it goes."""
        always = self.model_dump(mode="json", include={"benchmarks", "limit", "validation", "autocast"})
        if_set = self.model_dump(mode="json", include={"dtype", "max_new_tokens", "judge"}, exclude_none=True)
        return (
            always | if_set
        )  # keys that were not there from the start are part of a piece's key only where they say something


class RatesSpec(Config):
    """About what one unit takes on a `device`, in seconds: stated, not measured, for a plan made elsewhere.

    `row` is by builder (or `samples`, `layout`, `take`), `example` of training by source (`offline`, `online`, `bdhs`,
    `mixed`, `rl`), `answer` by benchmark; `other` stands for all that are not named.
    """

    device: str
    row: dict[str, float] = Field(default_factory=dict)
    example: dict[str, float] = Field(default_factory=dict)
    answer: dict[str, float] = Field(default_factory=dict)
    prefix_tokens: int | None = Field(default=None, ge=1)
    answer_tokens: int | None = Field(default=None, ge=1)


class StudyConfig(Config):
    """A study. `axes` gives every combination of its levels an arm, named `level+level`; `arms` adds single ones.

    `models` has every arm once for each of its models, named `model/arm`; `model` is short for one. `baseline` is the
    arm that all others of the same model are compared with; by default the untrained model.
    """

    about: str = ""
    model: str = LAB
    models: dict[str, ModelSpec] = Field(default_factory=dict)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    samples: dict[str, SamplesSpec] = Field(default_factory=dict)
    pairs: dict[str, PairsSpec]
    train: StudySettings
    axes: dict[str, dict[str, ArmSpec]] = Field(default_factory=dict)
    arms: dict[str, ArmSpec] = Field(default_factory=dict)
    baseline: str | None = None
    equal: EqualSpec = EqualSpec()
    unequal: Literal["refused", "allowed"] = "refused"
    rates: RatesSpec | None = None
    evaluate: EvaluateSpec
    claims: tuple[ClaimSpec, ...] = ()

    @model_validator(mode="after")
    def _names_are_plain(self) -> "StudyConfig":
        kinds = ("models", "samples", "pairs", "axes", "arms")
        named = [(kind, name) for kind in kinds for name in getattr(self, kind)]
        check_names([*named, *((f"axes.{axis}", level) for axis, levels in self.axes.items() for level in levels)])
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> "StudyConfig":
        arms = self.all_arms()
        if not arms:
            raise ValueError("a study needs arms or axes")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is named twice")
        if self.baseline is not None and self.baseline not in arms:
            raise ValueError(f"baseline {self.baseline!r} is no arm; arms: {', '.join(arms)}")
        twice = self.pairs.keys() & self.samples.keys()
        if twice:
            raise ValueError(f"samples and pairs share the name {min(twice)!r}; rename one")
        for name, spec in self.pairs.items():
            known = {**self.samples, **self.pairs} if spec.builder is not None else self.pairs
            for below in spec.below:
                _known(below, known, f"pairs.{name}{'.samples' if spec.builder is not None else ''}")
        below_pairs = {name: spec.below for name, spec in self.pairs.items()}
        refuse_ring(below_pairs, "pairs {} are built on each other; give one of them samples")
        plain = {name: spec for name, spec in self.samples.items() if spec.curate is None}
        for name, samples in self.samples.items():
            _known(samples.match.of if samples.match is not None else None, self.samples, f"samples.{name}.match.of")
        matched = {name: samples.match for name, samples in self.samples.items()}
        below_samples = {name: () if match is None else (match.of,) for name, match in matched.items()}
        refuse_ring(below_samples, "samples {} are made of each other; give one of them files")
        _known(self.evaluate.samples, self.samples, "evaluate.samples")
        for name, kept in self.samples.items():
            _known(kept.curate.of if kept.curate is not None else None, plain, f"samples.{name}.curate.of")
        for name, arm in arms.items():
            if arm.pairs is None and arm.samples is None:
                raise ValueError(f"arm {name!r} has neither pairs nor samples")
            _known(arm.pairs, self.pairs, f"pairs of arm {name!r}")
            _known(arm.samples, {**self.samples, **self.pairs}, f"samples of arm {name!r}")
        return self

    @model_validator(mode="after")
    def _models_are_named(self) -> "StudyConfig":
        if self.models and self.model != LAB:
            raise ValueError("give either model or models")
        for name, model in self.models.items():
            if not name or "/" in name:
                raise ValueError(
                    f"models.{name}: a name has letters and no slash, as in `models: {{small: {{path: DIR}}}}`"
                )
            for key in model.pairs:
                _known(key, self.pairs, f"models.{name}.pairs")
        return self

    @model_validator(mode="after")
    def _claims_are_about_arms(self) -> "StudyConfig":
        for claim in self.claims:
            for arm_name in (claim.arm, claim.against):
                _known(arm_name, {**self.all_arms(), BASE: None}, f"the claim {claim.says!r}")
            _known(claim.benchmark, dict.fromkeys(self.evaluate.benchmarks), f"the benchmark of claim {claim.says!r}")
        return self

    def all_models(self) -> dict[str, ModelSpec]:
        """Every model by name; the only one of the short form has none."""
        return self.models or {"": ModelSpec.named(self.model)}

    def all_arms(self) -> dict[str, ArmSpec]:
        """Every arm by name: the combinations of the axes' levels first."""
        combined: dict[str, ArmSpec] = {}
        for levels in product(*self.axes.values()) if self.axes else ():
            arm = ArmSpec()
            for axis, level in zip(self.axes.values(), levels, strict=True):
                arm = axis[level].over(arm)
            combined["+".join(levels)] = arm
        return combined | self.arms


def full_name(model: str, arm: str) -> str:
    """How an arm of a model is called where there may be several."""
    return f"{model}/{arm}" if model else arm


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings, the one above winning; a loss is replaced as a whole, since its keys depend on its name."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        inner = isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value
        result[key] = merged(old, value) if inner and isinstance(old, Mapping) else value
    return result


def _known(name: str | None, known: Mapping[str, object], what: str) -> None:
    if name is not None and name not in known:
        raise ValueError(f"{what}: there is no {name!r}; known: {', '.join(known) or 'none'}")
