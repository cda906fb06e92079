"""The config of a study: samples, pairs, arms, seeds and benchmarks, in one YAML file with no unknown keys.

Every number that affects results is in this file or in the config files that it names. `plan` derives the jobs.
"""

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from sightline.config import Config, Seed
from sightline.data.hub import HUB_NAME, PACKAGE
from sightline.models.spec import ModelOptions
from sightline.recipes.matching.steps import STEPS
from sightline.study.claims import ClaimSpec
from sightline.study.names import check_names, refuse_cycle

#: The model that ships with Sightline.
LAB = "lab"

#: The name of the untrained model among the arms.
BASE = "base"


class StudySettings(Config):
    """A config file and the keys that override it, in the structure of that config."""

    config: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict)

    def with_keys(self, more: Mapping[str, Any]) -> "StudySettings":
        """A copy with further keys, which take precedence."""
        return self.model_copy(update={"set": merged(self.set, more)})


class CurateSpec(StudySettings):
    """`sightline curate` on the samples named `of`, once per seed, since its reward models may differ by seed."""

    of: str


class PackageSpec(Config):
    """Files from a Python package (`sightline fetch package`), given as NAME==VERSION.

    `inside` is a folder in the package, `file` a file in that folder.
    """

    name: str = Field(pattern=PACKAGE)
    source: bool = False
    inside: str | None = None
    file: str | None = None


class MatchSpec(StudySettings):
    """A step of `sightline match`, applied to the samples named `of`, or to files at `path` or in a `package`.

    `per_seed` repeats the step for each seed.
    """

    step: str
    of: str | None = None
    path: Path | None = None
    package: PackageSpec | None = None
    per_seed: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> "MatchSpec":
        if [self.of, self.path, self.package].count(None) != 2:
            raise ValueError("give exactly one of `of`, `path` and `package`")
        _known(self.step, STEPS, "step")
        return self


class SamplesSpec(Config):
    """Images and prompts: `count` scenes of one of the lab's splits, a samples directory at `path`, the samples that
    `curate` keeps, or the output of a `match` step.
    """

    split: str | None = None
    count: int | None = Field(default=None, ge=1)
    scenes: dict[str, Any] = Field(default_factory=dict, description="keys of the lab's scenes config to override")
    path: Path | None = None
    curate: CurateSpec | None = None
    match: MatchSpec | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "SamplesSpec":
        drawn = self.split is not None and self.count is not None
        ways = [drawn, self.path is not None, self.curate is not None, self.match is not None]
        if ways.count(True) != 1 or (self.scenes and not drawn):
            raise ValueError("give exactly one of `split` with `count`, `path`, `curate` and `match`")
        return self


class FilesSpec(Config):
    """Files in a published layout (`sightline import`): at `path`, or fetched from the hub dataset `hub`.

    `inside` selects a file or folder of them; images are below `images`, or next to the files. `rows` is an approximate
    number of rows, used only by the estimate.
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
            raise ValueError("give either `path`, or `hub` with an optional `revision`")
        return self


class TakeSpec(Config):
    """`count` pairs of the set named `of`: the first ones, or a random draw by `random_seed`."""

    of: str
    count: int = Field(ge=1)
    random_seed: Seed | None = None


class PairsSpec(StudySettings):
    """A set of pairs from exactly one of five sources; `per_seed` rebuilds random ones for each seed.

    `builder` with `samples`, which may name other pairs of the study: their chosen answers are then the references.
    `path`, a directory of pairs. `files` in a published layout (`set` has keys of `sightline import`). `take`, a subset
    of another set. `average`, two sets on the same prompts, for averaged DPO.
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
            raise ValueError("give exactly one of `builder` with `samples`, `path`, `files`, `take` and `average`")
        return self

    @property
    def below(self) -> tuple[str, ...]:
        """The sets that this one is built from."""
        one = self.take.of if self.take is not None else self.samples
        return self.average or (() if one is None else (one,))


class EqualSpec(Config):
    """Sizes that are made equal for all arms: the first `pairs` rows of each arm's set of pairs or samples."""

    pairs: int | None = Field(default=None, ge=1)


class ArmSpec(Config):
    """One training setup: its pairs, its prompts for online answers, and its keys of the training config.

    `config` is a file that replaces the study's `train` section, for arms of another kind, such as RL. In values,
    `${pairs.NAME}`, `${samples.NAME}`, `${train.ARM}` and `${adapter.ARM}` are replaced by that directory, for the same
    seed. An arm with `measured: false`, such as a reward model for other arms, is not evaluated.
    """

    pairs: str | None = None
    samples: str | None = None
    config: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    measured: bool = True

    def over(self, below: "ArmSpec") -> "ArmSpec":
        """This arm's settings, with those of `below` as defaults."""
        return ArmSpec(
            pairs=self.pairs or below.pairs,
            samples=self.samples or below.samples,
            config=self.config or below.config,
            set=merged(below.set, self.set),
            measured=self.measured and below.measured,
        )


class StudyModel(Config):
    """A base model for the arms: `path` is `lab` or a directory, `hub` a hub name to fetch, `package` a Python package
    that contains it.

    `set` overrides keys of the training config for this model, such as LoRA's targets; `pairs` overrides keys of
    builders, by the name of the set of pairs. `open` says how every job opens it, such as `{quantize: nf4}`.
    """

    path: str | None = None
    hub: str | None = Field(default=None, pattern=HUB_NAME)
    revision: str | None = None
    package: PackageSpec | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    pairs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    open: ModelOptions = Field(default=ModelOptions(), description="keys of ModelSpec, for every job with this model")

    @model_validator(mode="after")
    def _one_origin(self) -> "StudyModel":
        ways = [self.path, self.hub, self.package]
        if ways.count(None) != 2 or (self.revision is not None and self.hub is None):
            raise ValueError("give exactly one of `path`, `hub` with an optional `revision`, and `package`")
        return self

    @classmethod
    def named(cls, model: str) -> "StudyModel":
        """The model of the short form `model: NAME`: a hub name if no such folder exists, as in `sightline eval`."""
        is_hub_name = re.fullmatch(HUB_NAME, model) is not None and not Path(model).parent.exists()
        return cls(hub=model) if is_hub_name else cls(path=model)


class EvaluateSpec(Config):
    """Benchmarks for the base model and every arm; `validation` uses the scenes that are meant for model selection.

    `judge` (as for `sightline eval --judge`) grades open answers; `data` and `images` are the folders of the official
    files and images. `samples` names samples of the study that a benchmark uses in place of `data`.
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
        """The settings that affect results, without file locations and speed."""
        always = self.model_dump(mode="json", include={"benchmarks", "limit", "validation", "autocast"})
        # Later keys enter a job's key only if they are set, so that older results still match.
        if_set = self.model_dump(mode="json", include={"dtype", "max_new_tokens", "judge"}, exclude_none=True)
        return always | if_set


class RatesSpec(Config):
    """Approximate seconds per unit on a `device`, stated by the user, for an estimate on another machine.

    `row` is by builder (or `samples`, `layout`, `take`), `example` by training source (`offline`, `online`, `bdhs`,
    `mixed`, `rl`), `answer` by benchmark; `other` is the default.
    """

    device: str
    row: dict[str, float] = Field(default_factory=dict)
    example: dict[str, float] = Field(default_factory=dict)
    answer: dict[str, float] = Field(default_factory=dict)
    prefix_tokens: int | None = Field(default=None, ge=1)
    answer_tokens: int | None = Field(default=None, ge=1)


class StudyConfig(Config):
    """A study. `axes` adds an arm for every combination of levels, named `level+level`; `arms` adds single arms.

    `models` repeats every arm for each model, named `model/arm`; `model` is the short form for one. `baseline` is the
    arm that the others of the same model are compared with (default: the untrained model).
    """

    about: str = ""
    model: str = LAB
    models: dict[str, StudyModel] = Field(default_factory=dict)
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
            raise ValueError("`seeds` names a seed twice; remove one")
        if self.baseline is not None and self.baseline not in arms:
            raise ValueError(f"baseline {self.baseline!r} is not an arm; arms: {', '.join(arms)}")
        twice = self.pairs.keys() & self.samples.keys()
        if twice:
            raise ValueError(f"samples and pairs share the name {min(twice)!r}; rename one")
        for name, spec in self.pairs.items():
            known = {**self.samples, **self.pairs} if spec.builder is not None else self.pairs
            for below in spec.below:
                _known(below, known, f"pairs.{name}{'.samples' if spec.builder is not None else ''}")
        below_pairs = {name: spec.below for name, spec in self.pairs.items()}
        refuse_cycle(below_pairs, "pairs {} are built from each other; give one of them samples")
        plain = {name: spec for name, spec in self.samples.items() if spec.curate is None}
        for name, samples in self.samples.items():
            _known(samples.match.of if samples.match is not None else None, self.samples, f"samples.{name}.match.of")
        matched = {name: samples.match for name, samples in self.samples.items()}
        below_samples = {name: () if match is None else (match.of,) for name, match in matched.items()}
        refuse_cycle(below_samples, "samples {} are made of each other; give one of them files")
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

    def all_models(self) -> dict[str, StudyModel]:
        """Every model by name; the model of the short form has the empty name."""
        return self.models or {"": StudyModel.named(self.model)}

    def all_arms(self) -> dict[str, ArmSpec]:
        """Every arm by name, combinations of axes first."""
        combined: dict[str, ArmSpec] = {}
        for levels in product(*self.axes.values()) if self.axes else ():
            arm = ArmSpec()
            for axis, level in zip(self.axes.values(), levels, strict=True):
                arm = axis[level].over(arm)
            combined["+".join(levels)] = arm
        return combined | self.arms


def full_name(model: str, arm: str) -> str:
    """An arm's name, qualified by its model if the model has a name."""
    return f"{model}/{arm}" if model else arm


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings merged; `above` wins. A section with a `name`, such as a loss, is replaced as a whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        inner = isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value
        result[key] = merged(old, value) if inner and isinstance(old, Mapping) else value
    return result


def _known(name: str | None, known: Mapping[str, object], what: str) -> None:
    if name is not None and name not in known:
        raise ValueError(f"{what}: there is no {name!r}; known: {', '.join(known) or 'none'}")
