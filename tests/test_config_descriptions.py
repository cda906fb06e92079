"""Every key of every config in the package has a description, which the generated reference and editors show."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

import sightline
from sightline.config import Config
from sightline.records import hash_json


def subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in model.__subclasses__():
        yield child
        yield from subclasses(child)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def all_configs() -> list[type[BaseModel]]:
    """The package's configs, and the models of their fields."""
    root = Path(sightline.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if re.search(r"^ *class \w+\(.*(Config|Settings)\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            import_module(
                ".".join(("sightline", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            )
    todo = [model for model in subclasses(Config) if model.__module__.startswith("sightline.")]
    found: dict[type[BaseModel], None] = {}
    while todo:
        model = todo.pop()
        if model in found or model is BaseModel:
            continue
        found[model] = None
        todo += [each for field in model.model_fields.values() for each in models_in(field.annotation)]
    return sorted(found, key=lambda model: (model.__module__, model.__qualname__))


def undescribed(model: type[BaseModel]) -> list[str]:
    """The keys of a model without a description, or with one that is not a plain phrase."""
    texts = {key: field.description or "" for key, field in model.model_fields.items()}
    return [key for key, text in texts.items() if len(text) < 3 or text != " ".join(text.split()) or text.endswith(".")]


class Undescribed(Config):
    """A config with one good key and two bad ones."""

    good: int = Field(default=1, description="a number of rows")
    bare: int = 1
    sentence: int = Field(default=1, description="A sentence.")


class Plain(Config):
    """The same keys without descriptions."""

    good: int = 1
    bare: int = 1
    sentence: int = 1


def test_a_missing_description_would_be_found() -> None:
    assert undescribed(Undescribed) == ["bare", "sentence"]


def test_every_key_is_described() -> None:
    models = all_configs()
    names = {model.__name__ for model in models}
    assert {"TrainConfig", "LoraConfig", "BDHSConfig", "StudyConfig", "EndpointConfig", "WorldConfig"} <= names
    assert len(models) > 100
    faults = {f"{model.__module__}.{model.__qualname__}": undescribed(model) for model in models}
    assert {name: keys for name, keys in faults.items() if keys} == {}


@pytest.mark.parametrize("values", [{}, {"good": 3}])
def test_descriptions_do_not_change_hashes(values: dict[str, int]) -> None:
    """A manifest hashes the values of a config, so that a better description leaves finished stages valid."""
    with_text, without = Undescribed(**values), Plain(**values)
    assert hash_json(with_text.model_dump(mode="json")) == hash_json(without.model_dump(mode="json"))
