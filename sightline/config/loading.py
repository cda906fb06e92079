"""Config loading: a YAML file, then `a.b=c` overrides, into a closed pydantic model.

There are no includes, environment variables or search path, so a run's manifest holds its whole config. YAML is limited
to plain YAML 1.2 values of bounded size, since a config is untrusted text. `problems` phrases the errors.
"""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from sightline.config.problems import Outline, describe, first_problem, key_path, missing_key, shorten, unknown_key
from sightline.errors import InputError

#: The most values that a config may hold, with aliases expanded.
MOST_VALUES = 100_000
#: Integers must fit into 64 bits, as in JSON readers, NumPy and torch.
LARGEST_INTEGER = 2**63 - 1
_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: the text is not YAML, is too large, or holds an invalid value.
        RecursionError: the text is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Refuse a document of more than `MOST_VALUES` values with aliases expanded, and an alias that contains itself.

    The size of each node is computed once, so the time is linear in the length of the text.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in above:
            raise ConstructorError(problem="an alias contains itself", problem_mark=node.start_mark)
        if id(node) not in sizes:
            above.add(id(node))
            inner = node.value
            nodes = (part for pair in inner for part in pair) if isinstance(node, yaml.MappingNode) else inner
            sizes[id(node)] = 1 + sum(map(size, nodes))
            above.remove(id(node))
            if sizes[id(node)] > MOST_VALUES:
                problem = f"more than {MOST_VALUES:,} values with aliases (*name) expanded"
                raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        return sizes[id(node)]

    size(root)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values (1.1 reads `1e-4` as text, `off` as false, `12:30` as 750); duplicate keys are errors."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's name

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag.startswith(_TAG) and node.tag not in _KNOWN_TAGS and ":python/" not in node.tag:
            problem = f"the tag !!{node.tag.removeprefix(_TAG)} is not supported"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML converts to the type of a tag without checking the text.
            problem = f"{_shown(node)} is not a valid {node.tag.removeprefix(_TAG)}"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # a !!map tag may be on any node
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                if key.value in seen:
                    raise ConstructorError(problem=f"key '{key.value}' is written twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        # Python refuses to convert more than some thousand digits, and is slow for many.
        if len(node.value) <= len(str(LARGEST_INTEGER)) + 1:
            value: int = super().construct_yaml_int(node)
            if abs(value) <= LARGEST_INTEGER:
                return value
        problem = f"the integer {_shown(node)} is beyond {LARGEST_INTEGER} (64 bits)"
        raise ConstructorError(problem=problem, problem_mark=node.start_mark)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if math.isinf(value) and "inf" not in node.value.lower():
            problem = f"the number {_shown(node)} is too large for a float"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        return value


def _shown(node: yaml.Node) -> str:
    """The text of a scalar, shortened."""
    text = repr(node.value) if isinstance(node, yaml.ScalarNode) else "the value"
    return text if len(text) <= 40 else f"{text[:36]}...'"


_DIGITS = "-+0123456789"
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", _DIGITS),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", _DIGITS + "."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)


T = TypeVar("T", bound=BaseModel)


def load_config(
    model: type[T], path: Path | None, overrides: Sequence[str] = (), *, elsewhere: Sequence[str] = ()
) -> T:
    """Read `path` if given, set each override (`section.key=value`, the value in YAML) and validate.

    Sections of the file that are named in `elsewhere` belong to another config and are skipped.

    Raises:
        InputError: the file or an override cannot be read, a key is unknown or missing, or a value is invalid.
    """
    data, keys_of = _read(path, overrides, elsewhere)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = first_problem(error)
        place = key_path(problem, data)
        origin = _origin(place, path, keys_of)
        name = missing_key(model, ".".join(map(str, place)))
        remedy = f"; set it in a file or with {name}=VALUE" if problem["type"] == "missing" else ""
        raise InputError(f"{origin}: {describe(error, model, data)}{remedy}") from error


def check_keys(
    outline: Outline, path: Path | None, overrides: Sequence[str] = (), *, elsewhere: Sequence[str] = ()
) -> None:
    """Check the keys of a config against the outline of its model, without its class; `elsewhere` as in `load_config`.

    Raises:
        InputError: the file or an override cannot be read, or a key is unknown.
    """
    data, keys_of = _read(path, overrides, elsewhere)
    for place in outline.unknown(data):
        raise InputError(f"{_origin(place, path, keys_of)}: {unknown_key(place, outline.known)}")


def _read(
    path: Path | None, overrides: Sequence[str], elsewhere: Sequence[str]
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The file's mapping with the overrides set, and the keys of each override."""
    found = {} if path is None else read_yaml(path)
    data = {key: value for key, value in found.items() if key not in elsewhere}
    keys_of: dict[str, tuple[str, ...]] = {}
    for override in overrides:
        keys, value = parse_override(override)
        data = _with_value(data, keys, value, override)
        keys_of[override] = keys
    return data, keys_of


def _origin(place: tuple[str | int, ...], path: Path | None, keys_of: Mapping[str, tuple[str, ...]]) -> str:
    """The origin of a value, for errors: an override or the file."""
    origin = next((f"override '{text}'" for text, keys in keys_of.items() if _touches(keys, place)), None)
    return origin or ("config" if path is None else str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        InputError: the file is missing, is not UTF-8, is not YAML, repeats a key or holds no mapping.
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
        raise InputError(f"config {path} holds {shorten(data)}; write keys and values (key: value)")
    return data


def parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """The keys and the value of `section.key=value`; the value is parsed as YAML (`1e-4`, `true`, `[a, b]`, `null`).

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
        raise InputError(f"override '{override}': '{key}' holds {shorten(inner)}, which is not a section")
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
