"""From a study's config to the pieces of work it takes, each once: arms that share pairs share the work on them.

A piece is known by its content key: what it does, with which settings and seed, on which other pieces. Nothing runs
here; how a piece is done is `work`, when is `runner`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from sightline.config.loading import read_yaml
from sightline.errors import InputError
from sightline.records import hash_json
from sightline.records.manifest import content_hash
from sightline.study.config import ArmSpec, PairsSpec, SamplesSpec, Settings, StudyConfig, merged

Kind = Literal["samples", "pairs", "train", "eval"]
_PLACE = re.compile(r"\$\{(pairs|samples|train|adapter)\.([^}]+)\}")


@dataclass(frozen=True)
class Piece:
    """One piece of work. `settings` may name other pieces' directories; `inputs` are those it stands on, by role."""

    key: str
    kind: Kind
    label: str
    settings: dict[str, Any]
    seed: int
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> key of a piece, or a path of the user's

    @property
    def folder(self) -> str:
        """Its directory, relative to the study's."""
        readable = re.sub(r"[^A-Za-z0-9.+_-]+", "-", self.label)[:60]
        return f"{self.kind}/{readable}-{self.key[:10]}"


@dataclass(frozen=True)
class Run:
    """What one arm with one seed came to: the pieces that train and measure it."""

    arm: str
    seed: int
    train: str
    eval: str | None


@dataclass(frozen=True)
class StudyPlan:
    """All pieces in an order in which they can be done, and which run they belong to."""

    config: StudyConfig
    pieces: dict[str, Piece]
    base: str
    runs: tuple[Run, ...]

    def before(self, piece: Piece) -> Iterator[Piece]:
        """The pieces that a piece stands on."""
        return (self.pieces[key] for key in piece.inputs.values() if key in self.pieces)


_PLANS: TypeAdapter[StudyPlan] = TypeAdapter(StudyPlan)


def plan_text(plan: StudyPlan) -> str:
    """A plan as JSON."""
    return _PLANS.dump_json(plan).decode("utf-8")


def plan_of_text(text: str) -> StudyPlan:
    """The plan that `plan_text` wrote; no file is opened.

    Raises:
        ValueError: it is no plan of this version.
    """
    return _PLANS.validate_json(text)


def plan_study(config: StudyConfig) -> StudyPlan:
    """Every piece of the study.

    Raises:
        InputError: a config file or a directory that the study names does not exist, or arms stand on each other.
    """
    return _Planner(config).plan()


class _Planner:
    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._arms = config.all_arms()
        self._pieces: dict[str, Piece] = {}
        self._open: list[str] = []
        self._model = {} if config.model == "lab" else {"model": config.model}

    def plan(self) -> StudyPlan:
        base = self._evaluation("base", None)
        runs = []
        for seed in self._config.seeds:
            for name, arm in self._arms.items():
                train = self._training(name, seed)
                measured = self._evaluation(f"{name} {seed}", train) if arm.measured else None
                runs.append(Run(name, seed, train, measured))
        return StudyPlan(self._config, self._pieces, base, tuple(runs))

    def _add(self, kind: Kind, label: str, settings: Mapping[str, Any], seed: int, inputs: Mapping[str, str]) -> str:
        contents = {role: key if key in self._pieces else content_hash(Path(key), role) for role, key in inputs.items()}
        key = hash_json([kind, settings, seed, contents])
        self._pieces.setdefault(key, Piece(key, kind, label, dict(settings), seed, dict(inputs)))
        return key

    def _samples(self, name: str) -> str:
        spec: SamplesSpec = self._config.samples[name]
        if spec.path is not None:
            return str(spec.path)
        settings = {"split": spec.split, "count": spec.count, "scenes": spec.scenes}
        return self._add("samples", name, settings, 0, {})

    def _pairs(self, name: str, seed: int) -> str:
        spec: PairsSpec = self._config.pairs[name]
        if spec.path is not None:
            return str(spec.path)
        assert spec.samples is not None
        own = seed if spec.per_seed else 0
        below = self._pairs(spec.samples, own) if spec.samples in self._config.pairs else self._samples(spec.samples)
        inputs = {"samples": below, **self._model}
        settings, used = self._resolved({"builder": spec.builder, "config": _settings(spec)}, own)
        return self._add("pairs", f"{name} {own}", settings, own, inputs | used)

    def _training(self, name: str, seed: int) -> str:
        if name in self._open:
            raise InputError(f"study: the arms {' and '.join(self._open)} stand on each other; take one reference away")
        if name not in self._arms:
            raise InputError(f"study: an arm refers to {name!r}, which is no arm; arms: {', '.join(self._arms)}")
        self._open.append(name)
        arm: ArmSpec = self._arms[name]
        told = Settings(config=arm.config) if arm.config is not None else self._config.train
        settings, used = self._resolved({"config": _settings(told.with_keys(arm.set))}, seed)
        inputs = dict(self._model)
        if arm.pairs is not None:
            inputs["pairs"] = self._pairs(arm.pairs, seed)
        if arm.samples is not None:
            inputs["samples"] = self._samples(arm.samples)
        self._open.pop()
        return self._add("train", f"{name} {seed}", settings, seed, inputs | used)

    def _evaluation(self, label: str, train: str | None) -> str:
        told = self._config.evaluate
        settings = told.model_dump(mode="json", exclude={"data", "batch_size"})
        inputs = dict(self._model) | ({} if train is None else {"train": train})
        return self._add("eval", label, settings, 0, inputs)

    def _resolved(self, settings: Any, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings with `${...}` replaced by `${role:rest}`, and the piece each role is."""
        used: dict[str, str] = {}

        def place(kind: str, name: str) -> str:
            makers: dict[str, Callable[[], str]] = {
                "pairs": lambda: self._pairs(self._named(name, self._config.pairs, "pairs"), seed),
                "samples": lambda: self._samples(self._named(name, self._config.samples, "samples")),
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
            raise InputError(f"study: ${{{what}.{name}}} is not there; known: {', '.join(known) or 'none'}")
        return name


def _settings(told: Settings) -> dict[str, Any]:
    """A config as one mapping: the file's keys with those that differ put over them."""
    below = {} if told.config is None else read_yaml(told.config)
    return merged(below, told.set)
