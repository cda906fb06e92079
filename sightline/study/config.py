"""The config of a study: samples, pairs, arms, seeds and benchmarks, in one YAML file with no unknown keys.

Every number that affects results is in this file or in the config files that it names. `plan` derives the jobs.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from sightline.config import Config, Seed
from sightline.data.hub import HUB_NAME
from sightline.data.terminal import visible
from sightline.endpoint import GenerationServerConfig
from sightline.models.spec import ModelOptions
from sightline.study.claims import ClaimSpec
from sightline.study.datasets import OverridingKeys, PackageSpec, PairsSpec, SamplesSpec, StudySettings, merged
from sightline.study.headline import HeadlineSpec
from sightline.study.machines import LaunchSpec, RatesSpec

#: The model that ships with Sightline.
LAB = "lab"

#: The name of the untrained model among the arms.
BASE = "base"


class EqualSpec(Config):
    """Sizes that are made equal for all arms."""

    pairs: int | None = Field(
        default=None,
        ge=1,
        description="number of rows, from the first, of every arm's set of pairs or samples; null: sizes stay as they "
        "are",
    )


class ArmSpec(Config):
    """One training setup: its pairs, its prompts for online answers, and its keys of the training config.

    In values, `${pairs.NAME}`, `${samples.NAME}`, `${train.ARM}` and `${adapter.ARM}` are replaced by that directory,
    for the same seed.
    """

    pairs: str | None = Field(default=None, description="the set of pairs to train on")
    samples: str | None = Field(
        default=None, description="the samples whose prompts are answered during training, or that RL trains on"
    )
    config: Path | None = Field(
        default=None,
        description="a file that replaces the study's `train` section, for arms of another kind, such as RL",
    )
    set: OverridingKeys = Field(default_factory=dict, description="keys of the training config that differ in this arm")
    measured: bool = Field(
        default=True, description="evaluate this arm; false for an arm that others use, such as a reward model"
    )

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
    """A base model for the arms, from exactly one of `path`, `hub` and `package`."""

    path: str | None = Field(default=None, description="`lab`, or a model directory")
    hub: str | None = Field(default=None, pattern=HUB_NAME, description="hub model to fetch, OWNER/NAME")
    revision: str | None = Field(
        default=None, description="branch, tag or commit of the hub model; null: the current main branch"
    )
    package: PackageSpec | None = Field(default=None, description="Python package that contains the model")
    set: OverridingKeys = Field(
        default_factory=dict,
        description="keys of the training config to override for this model, such as LoRA's targets",
    )
    pairs: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="set of pairs -> keys of its builder to override for this model"
    )
    open: ModelOptions = Field(
        default=ModelOptions(), description="how every job opens the model: keys of ModelSpec, such as quantize"
    )
    endpoint: GenerationServerConfig | None = Field(
        default=None, description="server that answers for it, in pairs that need no more and in evaluations"
    )

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
    """Benchmarks for the base model and every arm, with the settings of `sightline eval`."""

    benchmarks: tuple[str, ...] = Field(
        min_length=1, description="the benchmarks for the base model and every measured arm"
    )
    limit: int | None = Field(
        default=None, ge=1, description="use the first so many images of each benchmark; null: all"
    )
    validation: bool = Field(default=False, description="use the scenes for model selection instead of the test scenes")
    autocast: bool = Field(
        default=False, description="run the forward pass in bfloat16; faster on a GPU, with slightly different numbers"
    )
    batch_size: int = Field(
        default=64, ge=1, description="answers generated together; does not affect results beyond rounding"
    )
    data: Path | None = Field(default=None, description="folder of the benchmarks' official files")
    images: Path | None = Field(default=None, description="folder of the benchmarks' images")
    samples: str | None = Field(
        default=None, description="samples of the study that a benchmark uses in place of `data`"
    )
    dtype: str | None = Field(default=None, description="precision of the weights; null: float32")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="token limit of an answer; null: each benchmark's own limit"
    )
    judge: dict[str, Any] | None = Field(
        default=None, description="the judge of open answers, as for `sightline eval --judge`; null: they stay unscored"
    )
    strip_reasoning: bool = Field(
        default=False, description="score the text after a model's reasoning tags; answers are stored whole"
    )
    endpoint: GenerationServerConfig | None = Field(default=None, description="server that answers for the model")

    def settings(self) -> dict[str, Any]:
        """The settings that affect results, without file locations and speed."""
        always = self.model_dump(mode="json", include={"benchmarks", "limit", "validation", "autocast"})
        # Later keys enter a job's key only if they are set, so that older results still match.
        if_set = self.model_dump(mode="json", include={"dtype", "max_new_tokens", "judge"}, exclude_none=True)
        return always | if_set | ({"strip_reasoning": True} if self.strip_reasoning else {})


class StudyConfig(Config):
    """A study: models, seeds, samples, sets of pairs, arms, benchmarks and claims."""

    about: str = Field(default="", description="the question of the study, shown in the report")
    model: str = Field(
        default=LAB, description="short form of `models` for a single model: `lab`, a directory or a hub name"
    )
    models: dict[str, StudyModel] = Field(
        default_factory=dict, description="name -> model; every arm is repeated for each, named `model/arm`"
    )
    seeds: tuple[Seed, ...] = Field(min_length=1, description="seeds; every arm is trained once per seed")
    samples: dict[str, SamplesSpec] = Field(default_factory=dict, description="name -> images and prompts")
    pairs: dict[str, PairsSpec] = Field(description="name -> set of pairs")
    train: StudySettings = Field(description="the training config that arms start from")
    axes: dict[str, dict[str, ArmSpec]] = Field(
        default_factory=dict,
        description="axis -> level -> settings; adds an arm for every combination of levels, named `level+level`",
    )
    arms: dict[str, ArmSpec] = Field(default_factory=dict, description="name -> a single arm")
    baseline: str | None = Field(
        default=None,
        description="the arm that the others of the same model are compared with; null: the untrained model",
    )
    equal: EqualSpec = Field(default=EqualSpec(), description="sizes that are made equal for all arms")
    unequal: Literal["refused", "allowed"] = Field(
        default="refused", description="whether arms may differ in the number of training steps and pairs"
    )
    rates: RatesSpec | None = Field(
        default=None, description="speed of another machine for the estimate; null: measured or unknown"
    )
    evaluate: EvaluateSpec = Field(description="benchmarks of the base model and every arm")
    claims: tuple[ClaimSpec, ...] = Field(
        default=(), description="published results to test with the study's evaluations"
    )
    headline: HeadlineSpec | None = Field(
        default=None, description="the contrasts that the report opens with; null: none"
    )
    launch: LaunchSpec = Field(default=LaunchSpec(), description="GPUs of a job, for the scripts of `--launch`")

    @model_validator(mode="after")
    def _names_are_plain(self) -> "StudyConfig":
        kinds = ("models", "samples", "pairs", "axes", "arms")
        named = [(kind, name) for kind in kinds for name in getattr(self, kind)]
        _check_names([*named, *((f"axes.{axis}", level) for axis, levels in self.axes.items() for level in levels)])
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
                _require_known(below, known, f"pairs.{name}{'.samples' if spec.builder is not None else ''}")
        below_pairs = {name: spec.below for name, spec in self.pairs.items()}
        _refuse_cycle(below_pairs, "pairs {} are built from each other; give one of them samples")
        plain = {name: spec for name, spec in self.samples.items() if spec.curate is None}
        for name, samples in self.samples.items():
            _require_known(
                samples.match.of if samples.match is not None else None, self.samples, f"samples.{name}.match.of"
            )
        matched = {name: samples.match for name, samples in self.samples.items()}
        below_samples = {name: () if match is None else (match.of,) for name, match in matched.items()}
        _refuse_cycle(below_samples, "samples {} are made of each other; give one of them files")
        _require_known(self.evaluate.samples, self.samples, "evaluate.samples")
        for name, kept in self.samples.items():
            _require_known(kept.curate.of if kept.curate is not None else None, plain, f"samples.{name}.curate.of")
        for name, arm in arms.items():
            if arm.pairs is None and arm.samples is None:
                raise ValueError(f"arm {name!r} has neither pairs nor samples")
            _require_known(arm.pairs, self.pairs, f"pairs of arm {name!r}")
            _require_known(arm.samples, {**self.samples, **self.pairs}, f"samples of arm {name!r}")
        return self

    @model_validator(mode="after")
    def _models_are_named(self) -> "StudyConfig":
        if self.models and self.model != LAB:
            raise ValueError("give either model or models")
        if len(self.models) > 1 and self.evaluate.endpoint is not None:
            raise ValueError("one server cannot answer for several models; give each of `models` its `endpoint`")
        for name, model in self.models.items():
            if not name or "/" in name:
                raise ValueError(
                    f"models.{name}: a name has letters and no slash, as in `models: {{small: {{path: DIR}}}}`"
                )
            for key in model.pairs:
                _require_known(key, self.pairs, f"models.{name}.pairs")
        return self

    @model_validator(mode="after")
    def _claims_and_headline_are_about_arms(self) -> "StudyConfig":
        for claim in self.claims:
            for arm_name in (claim.arm, claim.against):
                _require_known(arm_name, {**self.all_arms(), BASE: None}, f"the claim {claim.says!r}")
            _require_known(
                claim.benchmark, dict.fromkeys(self.evaluate.benchmarks), f"the benchmark of claim {claim.says!r}"
            )
        if self.headline is not None:
            for arm_name in self.headline.arms:
                _require_known(arm_name, {**self.all_arms(), BASE: None}, "headline")
            _require_known(self.headline.benchmark, dict.fromkeys(self.evaluate.benchmarks), "headline.benchmark")
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


def _check_names(names: Iterable[tuple[str, str]]) -> None:
    """Check (kind, name) pairs: names appear in folders, scripts and reports, so each is one line of visible text.

    Raises:
        ValueError: a name is empty, starts or ends with a blank, or has an invisible character.
    """
    for what, name in names:
        if visible(name, kept="") != name:
            raise ValueError(f"{what} '{visible(name, kept='')}': a name has no newline, tab or other hidden character")
        if not name or name != name.strip():
            raise ValueError(f"{what} {name!r}: a name is not empty and has no blank at its ends")


def _refuse_cycle(below: Mapping[str, Iterable[str | None]], problem: str) -> None:
    """Refuse cycles among names that are built from others; `problem` has `{}` for the names of the cycle.

    Raises:
        ValueError: there is a cycle.
    """

    def follow(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"the {problem.format(' and '.join(above))}")
        for lower in below.get(name, ()):
            if lower is not None:
                follow(lower, (*above, name))

    for name in below:
        follow(name, ())


def _require_known(name: str | None, known: Mapping[str, object], what: str) -> None:
    """Check that a name, if given, is one of `known`; `what` is the key in the message.

    Raises:
        ValueError: it is not.
    """
    if name is not None and name not in known:
        raise ValueError(f"{what}: there is no {name!r}; known: {', '.join(known) or 'none'}")
