"""The plan of a study: its jobs, each once; arms that share pairs share the job that builds them.

A job is identified by its content key, a hash of its kind, settings, seed and inputs. Nothing runs here: `execute` runs
a job, `runner` schedules them. On disk, the ledger's table and the launch folder are `pieces`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from sightline.builders.registry import check_server, get_entry
from sightline.config.loading import read_yaml
from sightline.endpoint import GenerationServerConfig
from sightline.errors import InputError
from sightline.records import hash_json
from sightline.records.manifest import content_hash
from sightline.study.config import BASE, LAB, ArmSpec, StudyConfig, StudyModel, full_name
from sightline.study.datasets import (
    FilesSpec,
    MatchSpec,
    PackageSpec,
    PairsSpec,
    SamplesSpec,
    StudySettings,
    merged,
)

Kind = Literal["fetch", "samples", "pairs", "train", "eval"]
WHOLE = "whole"  # the role of a training that writes a whole model instead of an adapter
_PLACE = re.compile(r"\$\{(pairs|samples|train|adapter)\.([^}]+)\}")  # `${model}` is kept: the job's own model


@dataclass(frozen=True)
class Job:
    """A unit of work. `settings` may refer to other jobs' directories; `inputs` are the jobs it depends on, by role."""

    key: str
    kind: Kind
    label: str
    settings: dict[str, Any]
    seed: int
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> key of a job, or a user's path
    server: GenerationServerConfig | None = None  # answers for the model; what decides its answers is in `settings`

    @property
    def folder(self) -> str:
        """The job's directory, relative to the study's."""
        readable = re.sub(r"[^A-Za-z0-9.+_-]+", "-", self.label)[:60]
        return f"{self.kind}/{readable}{self.mark}"

    @property
    def mark(self) -> str:
        """The end of its directory's name, which does not depend on labels."""
        return f"-{self.key[:10]}"


@dataclass(frozen=True)
class Run:
    """One arm with one seed: the keys of its training and evaluation. `arm` is its full name."""

    arm: str
    seed: int
    train: str
    eval: str | None
    model: str = ""


@dataclass(frozen=True)
class StudyPlan:
    """All jobs in an executable order, and the runs that use them.

    `bases` maps each model's name to the evaluation of the untrained model.
    """

    config: StudyConfig
    jobs: dict[str, Job]
    bases: Mapping[str, str]
    runs: tuple[Run, ...]

    def before(self, piece: Job) -> Iterator[Job]:
        """The jobs that a job depends on."""
        return (self.jobs[key] for key in piece.inputs.values() if key in self.jobs)


_PLANS: TypeAdapter[StudyPlan] = TypeAdapter(StudyPlan)


def plan_text(plan: StudyPlan) -> str:
    """A plan as JSON."""
    return _PLANS.dump_json(plan).decode("utf-8")


def parse_plan(text: str) -> StudyPlan:
    """The plan that `plan_text` wrote; no file is opened.

    Raises:
        ValueError: the text is not a plan of this version.
    """
    return _PLANS.validate_json(text)


def plan_study(config: StudyConfig) -> StudyPlan:
    """Derive every job of the study.

    Raises:
        InputError: a config file or a directory does not exist, or arms depend on each other.
    """
    jobs: dict[str, Job] = {}
    planners = {name: _Planner(config, name, jobs) for name in config.all_models()}
    bases = {name: planner.base() for name, planner in planners.items()}
    runs = [run for seed in config.seeds for planner in planners.values() for run in planner.runs(seed)]
    return StudyPlan(config, jobs, bases, tuple(runs))


class _Planner:
    """Adds the jobs of one model's arms to those of the other models; equal jobs are added once."""

    def __init__(self, config: StudyConfig, name: str, jobs: dict[str, Job]) -> None:
        self._config = config
        self._name = name
        self._spec: StudyModel = config.all_models()[name]
        self._arms = config.all_arms()
        self._jobs = jobs
        self._open: list[str] = []
        self._model = self._place_of_model()

    def base(self) -> str:
        """The evaluation of the untrained model."""
        return self._evaluation(full_name(self._name, BASE), None)

    def runs(self, seed: int) -> Iterator[Run]:
        """Every arm with one seed."""
        for name, arm in self._arms.items():
            train, called = self._training(name, seed), full_name(self._name, name)
            measured = self._evaluation(f"{called} {seed}", train) if arm.measured else None
            yield Run(called, seed, train, measured, self._name)

    @property
    def _opened(self) -> dict[str, Any]:
        """How jobs open the model, as a setting; nothing if it has no options (older keys)."""
        options = self._spec.open.model_dump(mode="json")
        return {"open": options} if options else {}

    def _place_of_model(self) -> dict[str, str]:
        """The model as an input; empty for the lab's model, which ships with Sightline."""
        if self._spec.package is not None:
            return {"model": self._package(self._spec.package)}
        if self._spec.hub is not None:
            settings = {"type": "model", "hub": self._spec.hub, "revision": self._spec.revision}
            return {"model": self._add("fetch", self._spec.hub, settings, 0, {})}
        return {} if self._spec.path in (None, LAB) else {"model": str(self._spec.path)}

    def _add(
        self,
        kind: Kind,
        label: str,
        settings: Mapping[str, Any],
        seed: int,
        inputs: Mapping[str, str],
        server: GenerationServerConfig | None = None,
    ) -> str:
        contents = {role: key if key in self._jobs else content_hash(Path(key), role) for role, key in inputs.items()}
        if server is not None:
            deciding = {"model", "max_side", "send_temperature", "send_seed"}
            settings = {**settings, "endpoint": server.model_dump(include=deciding)}
        key = hash_json([kind, settings, seed, contents])
        self._jobs.setdefault(key, Job(key, kind, label, dict(settings), seed, dict(inputs), server))
        return key

    def _samples(self, name: str, seed: int) -> str:
        spec: SamplesSpec = self._config.samples[name]
        if spec.curate is not None:
            resolved, used = self._resolved({"curate": _settings(spec.curate)}, seed)
            inputs = {"samples": self._samples(spec.curate.of, seed)}
            return self._add("samples", f"{full_name(self._name, name)} {seed}", resolved, seed, inputs | used)
        if spec.match is not None:
            return self._matched(name, spec.match, seed)
        if spec.path is not None:
            return str(spec.path)
        settings = {"split": spec.split, "count": spec.count, "scenes": spec.scenes}
        return self._add("samples", name, settings, 0, {})

    def _matched(self, name: str, spec: MatchSpec, seed: int) -> str:
        """A step of entity matching, on other samples or on files."""
        own, file = seed if spec.per_seed else 0, None
        if spec.of is not None:
            place = self._samples(spec.of, own)
        elif spec.package is not None:
            place, file = self._package(spec.package), spec.package.file
        else:
            place = str(spec.path)
        resolved, used = self._resolved({"match": spec.step, "config": _settings(spec), "file": file}, own)
        label = f"{name} {own}" if spec.per_seed else name
        return self._add("samples", label, resolved, own, {"place": place} | used)

    def _package(self, spec: PackageSpec) -> str:
        settings = {"type": "package", "package": spec.name, "source": spec.source, "inside": spec.inside}
        return self._add("fetch", spec.name, settings, 0, {})

    def _pairs(self, name: str, seed: int) -> str:
        spec: PairsSpec = self._config.pairs[name]
        if spec.path is not None:
            return str(spec.path)
        own = seed if spec.per_seed else 0
        if spec.files is not None:
            return self._imported(name, spec, spec.files)
        if spec.take is not None:
            settings: dict[str, Any] = {"take": spec.take.model_dump(exclude={"of"})}
            return self._add("pairs", f"{name} {own}", settings, 0, {"source": self._rows(spec.take.of, own)})
        if spec.average is not None:
            inputs = dict(zip(("first", "second"), (self._rows(each, own) for each in spec.average), strict=True))
            return self._add("pairs", f"{name} {own}", {"average": True}, 0, inputs)
        needs_model = get_entry(str(spec.builder)).needs_model
        inputs = {"samples": self._rows(str(spec.samples), own), **(self._model if needs_model else {})}
        config = merged(_settings(spec), self._spec.pairs.get(name, {}))
        opened = self._opened if needs_model else {}
        resolved, used = self._resolved({"builder": spec.builder, "config": config, **opened}, own)
        label = full_name(self._name, name) if needs_model else name
        return self._add("pairs", f"{label} {own}", resolved, own, inputs | used, self._server_of_pairs(spec))

    def _server_of_pairs(self, spec: PairsSpec) -> GenerationServerConfig | None:
        """The server that answers for the model: the pairs' own, or the model's where whole answers are enough."""
        if spec.endpoint is not None:
            check_server(str(spec.builder))
            return spec.endpoint
        entry = get_entry(str(spec.builder))
        return self._spec.endpoint if entry.needs_model and not entry.insides else None

    def _rows(self, name: str, seed: int) -> str:
        """Pairs or samples by name."""
        return self._pairs(name, seed) if name in self._config.pairs else self._samples(name, seed)

    def _equally_many(self, name: str, seed: int) -> str:
        """The rows of an arm, cut to the study's common number if it sets one."""
        place, count = self._rows(name, seed), self._config.equal.pairs
        if count is None:
            return place
        kind: Kind = "pairs" if name in self._config.pairs else "samples"
        label = self._jobs[place].label if place in self._jobs else name
        return self._add(
            kind, f"{count} of {label}", {"take": {"count": count, "random_seed": None}}, 0, {"source": place}
        )

    def _imported(self, name: str, spec: PairsSpec, source: FilesSpec) -> str:
        """Files in a published layout, fetched first if they are on the hub."""
        files = str(source.path)
        if source.hub is not None:
            fetched = {"type": "dataset", "hub": source.hub, "revision": source.revision}
            files = self._add("fetch", source.hub, fetched, 0, {})
        settings = {"layout": source.layout, "config": _settings(spec), "skip_bad": source.skip_bad}
        where = {"inside": source.inside, "images": None if source.images is None else str(source.images)}
        return self._add("pairs", name, settings | where, 0, {"files": files})

    def _training(self, name: str, seed: int) -> str:
        if name in self._open:
            raise InputError(f"study: the arms {' and '.join(self._open)} depend on each other; remove one reference")
        if name not in self._arms:
            raise InputError(f"study: an arm refers to {name!r}, which is not an arm; arms: {', '.join(self._arms)}")
        self._open.append(name)
        arm: ArmSpec = self._arms[name]
        training = StudySettings(config=arm.config) if arm.config is not None else self._config.train
        training = training.with_keys(self._spec.set).with_keys(arm.set)
        settings, used = self._resolved({"config": _settings(training), **self._opened}, seed)
        inputs = dict(self._model)
        if arm.pairs is not None:
            inputs["pairs"] = self._equally_many(arm.pairs, seed)
        if arm.samples is not None:  # with pairs, samples hold what is known about those pairs' prompts
            inputs["samples"] = self._rows(arm.samples, seed) if arm.pairs else self._equally_many(arm.samples, seed)
        self._open.pop()
        return self._add("train", f"{full_name(self._name, name)} {seed}", settings, seed, inputs | used)

    def _evaluation(self, label: str, train: str | None) -> str:
        name = self._config.evaluate.samples
        data = {} if name is None else {"data": self._samples(name, 0)}
        server = self._config.evaluate.endpoint or self._spec.endpoint
        inputs = self._measured(train)
        if server is not None and WHOLE in inputs:
            raise InputError(f"study: {label} is a whole model, and servers load adapters only; leave out the endpoint")
        settings = {**self._config.evaluate.settings(), **self._opened}
        return self._add("eval", label, settings, 0, inputs | data, server)

    def _measured(self, train: str | None) -> dict[str, str]:
        """The inputs of an evaluation: the model with a training's adapter, or a fully fine-tuned model."""
        if train is None:
            return dict(self._model)
        config = self._jobs[train].settings["config"]
        is_whole = "lora" in config and config["lora"] is None
        return {WHOLE: train} if is_whole else {**self._model, "train": train}

    def _resolved(self, settings: Any, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings with references written as `${role}`, and the job of each role."""
        used: dict[str, str] = {}

        def place(kind: str, name: str) -> str:
            makers: dict[str, Callable[[], str]] = {
                "pairs": lambda: self._pairs(self._named(name, self._config.pairs, "pairs"), seed),
                "samples": lambda: self._samples(self._named(name, self._config.samples, "samples"), seed),
                "train": lambda: self._training(name, seed),
                "adapter": lambda: self._training(name, seed),
            }
            role = f"{kind}.{name}"
            used[role] = makers[kind]()
            return "${" + role + "}"

        def walk(value: Any) -> Any:
            if isinstance(value, str):
                return _PLACE.sub(lambda found: place(found[1], found[2]), value)
            if isinstance(value, Mapping):
                return {key: walk(inner) for key, inner in value.items()}
            return [walk(inner) for inner in value] if isinstance(value, list | tuple) else value

        return walk(settings), used

    def _named(self, name: str, known: Mapping[str, object], what: str) -> str:
        if name not in known:
            raise InputError(f"study: ${{{what}.{name}}} does not exist; known: {', '.join(known) or 'none'}")
        return name


def _settings(given: StudySettings) -> dict[str, Any]:
    """A config as one mapping: the file's keys, overridden by `set`."""
    below = {} if given.config is None else read_yaml(given.config)
    return merged(below, given.set)
