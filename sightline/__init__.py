"""Sightline: align vision-language models with what they see.

    import sightline as sl

    vlm = sl.load("lab")
    pairs = sl.build_pairs("bdhs", "samples/", model=vlm, rho=0.97, temperature=0.8)
    run = sl.train(vlm, pairs, loss=sl.loss("dpo", beta=0.1), lr=6e-5, max_steps=20)
    base, new = sl.evaluate(vlm, ["lab-chair"]), sl.evaluate(run, ["lab-chair"])
    print(sl.compare(base, new))

The names in `__all__` are public and imported when they are first used; everything else may change.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> module that defines it.
_PUBLIC = {
    **dict.fromkeys(("load", "build_pairs", "loss", "train", "evaluate", "compare", "report"), "sightline.api.stages"),
    **dict.fromkeys(("PairSet", "TrainRun", "Evaluation", "ComparisonResult", "ReportPage"), "sightline.api.results"),
    **dict.fromkeys(
        (
            "register_loss",
            "register_builder",
            "register_benchmark",
            "register_judge",
            "register_writer",
            "register_layout",
            "register_family",
        ),
        "sightline.api.register",
    ),
    **dict.fromkeys(("Sample", "Pair", "Answer", "Score", "Estimate", "Manifest", "Turn"), "sightline.records"),
    **dict.fromkeys(
        ("Prefix", "ScoreRequest", "GenerateRequest", "Generation", "Sampling"), "sightline.models.requests"
    ),
    "ModelSpec": "sightline.models.spec",
    "VLM": "sightline.models.vlm",
    "answer_logps": "sightline.models.scorer",
    "generate": "sightline.models.sampler",
    "fit": "sightline.train.loop",
    "InputError": "sightline.errors",
}

if TYPE_CHECKING:
    from sightline import losses as losses
    from sightline.api.register import register_benchmark as register_benchmark
    from sightline.api.register import register_builder as register_builder
    from sightline.api.register import register_family as register_family
    from sightline.api.register import register_judge as register_judge
    from sightline.api.register import register_layout as register_layout
    from sightline.api.register import register_loss as register_loss
    from sightline.api.register import register_writer as register_writer
    from sightline.api.results import ComparisonResult as ComparisonResult
    from sightline.api.results import Evaluation as Evaluation
    from sightline.api.results import PairSet as PairSet
    from sightline.api.results import ReportPage as ReportPage
    from sightline.api.results import TrainRun as TrainRun
    from sightline.api.stages import build_pairs as build_pairs
    from sightline.api.stages import compare as compare
    from sightline.api.stages import evaluate as evaluate
    from sightline.api.stages import load as load
    from sightline.api.stages import loss as loss
    from sightline.api.stages import report as report
    from sightline.api.stages import train as train
    from sightline.errors import InputError as InputError
    from sightline.models.requests import GenerateRequest as GenerateRequest
    from sightline.models.requests import Generation as Generation
    from sightline.models.requests import Prefix as Prefix
    from sightline.models.requests import Sampling as Sampling
    from sightline.models.requests import ScoreRequest as ScoreRequest
    from sightline.models.sampler import generate as generate
    from sightline.models.scorer import answer_logps as answer_logps
    from sightline.models.spec import ModelSpec as ModelSpec
    from sightline.models.vlm import VLM as VLM
    from sightline.records import Answer as Answer
    from sightline.records import Estimate as Estimate
    from sightline.records import Manifest as Manifest
    from sightline.records import Pair as Pair
    from sightline.records import Sample as Sample
    from sightline.records import Score as Score
    from sightline.records import Turn as Turn
    from sightline.train.loop import fit as fit

__all__ = ["__version__", "losses", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("sightline.losses")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    module = _PUBLIC[name]
    if module == "sightline.api.stages":  # before a room is imported, so that plugins find none half-imported
        import_module("sightline.registry").load_plugins()
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _StageRoom(ModuleType):
    """A room that has the name of a stage, `sightline.train` and `sightline.report`: calling it runs the stage."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stage = self.__name__.rpartition(".")[2]
        return getattr(import_module(_PUBLIC[stage]), stage)(*args, **kwargs)


class _Package(ModuleType):
    """This package: Python binds an imported room to its name here, where the stage of that name must stay callable."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _PUBLIC and isinstance(value, ModuleType):
            value.__class__ = _StageRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
