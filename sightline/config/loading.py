"""Reading a config: a YAML file, then `a.b=c` overrides, into a closed pydantic model.

It opens nothing but the YAML file, and has no includes, environment variables or search path: what a run was told
is in its manifest. The base class of configs is in this package's `__init__`, how a mistake is named in `problems`,
which YAML is read in `yaml_values`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sightline.config.outline import Outline
from sightline.config.problems import describe, first_problem, key_path, missing_key, shorten, unknown_key
from sightline.config.yaml_values import parse_yaml
from sightline.errors import InputError

T = TypeVar("T", bound=BaseModel)


def load_config(model: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Read `path` (or nothing), set each override (`section.key=value`, the value in YAML) and validate.

    Raises:
        InputError: the file or an override cannot be read, a key is unknown or missing, a value is refused.
    """
    data, keys_of = _read(path, overrides)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = first_problem(error)
        place = key_path(problem, data)
        origin = _origin(place, path, keys_of)
        name = missing_key(model, ".".join(map(str, place)))
        remedy = f"; set it in a file or with {name}=VALUE" if problem["type"] == "missing" else ""
        raise InputError(f"{origin}: {describe(error, model, data)}{remedy}") from error


def check_keys(outline: Outline, path: Path | None, overrides: Sequence[str] = ()) -> None:
    """Refuse, as `load_config` would, what cannot be read and a key that the outline of a model does not have.

    Raises:
        InputError: the file or an override cannot be read, or a key is unknown.
    """
    data, keys_of = _read(path, overrides)
    for place in outline.unknown(data):
        raise InputError(f"{_origin(place, path, keys_of)}: {unknown_key(place, outline.known)}")


def _read(path: Path | None, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The file's mapping with the overrides set, and the keys of each override."""
    data = {} if path is None else read_yaml(path)
    keys_of: dict[str, tuple[str, ...]] = {}
    for override in overrides:
        keys, value = parse_override(override)
        data = _with_value(data, keys, value, override)
        keys_of[override] = keys
    return data, keys_of


def _origin(place: tuple[str | int, ...], path: Path | None, keys_of: Mapping[str, tuple[str, ...]]) -> str:
    """Where a value was set: by an override, or in the file."""
    origin = next((f"override '{text}'" for text, keys in keys_of.items() if _touches(keys, place)), None)
    return origin or ("config" if path is None else str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file is an empty mapping.

    Raises:
        InputError: no such file, not UTF-8, not YAML, a key written twice, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"config {path} does not exist; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} cannot be read as UTF-8 text ({error})") from error
    data = _parse(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"config {path} holds {shorten(data)}; it must hold keys and values (key: value)")
    return data


def parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """The keys and the value of `section.key=value`; the value is read as YAML (`1e-4`, `true`, `[a, b]`, `null`).

    Raises:
        InputError: there is no `=`, a key is empty, or the value is not YAML.
    """
    name, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys):
        raise InputError(f"override '{override}' must have the form section.key=value")
    return keys, _parse(text, f"override '{override}'")


def _with_value(data: Mapping[str, Any], keys: tuple[str, ...], value: object, override: str) -> dict[str, Any]:
    """A copy of `data` with one value set; never in place, since YAML anchors may share a section."""
    key, *rest = keys
    if not rest:
        return {**data, key: value}
    inner = data.get(key)
    if inner is not None and not isinstance(inner, dict):
        raise InputError(f"override '{override}': '{key}' holds {shorten(inner)}, which is no section")
    return {**data, key: _with_value(inner or {}, tuple(rest), value, override)}


def _touches(keys: tuple[str, ...], place: tuple[str | int, ...]) -> bool:
    """Whether an override set the value at `place`, something around it or something in it."""
    shared = min(len(keys), len(place))
    return shared > 0 and keys[:shared] == place[:shared]


def _parse(text: str, origin: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{origin}{line}: not YAML, {error.problem}; quote the value if it is text") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{origin}: not YAML ({' '.join(str(error).split())})") from error
