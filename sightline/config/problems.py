"""Phrases for validation errors (key, value, nearest name), and outlines: the keys of a config without its class.

It raises nothing and reads nothing; `loading` (configs) and `records.store` (rows) add the file and the line. An
outline finds a misspelled key before torch is imported (`sightline.cli.early`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

MAX_SHOWN = 80  # characters of an invalid value quoted in a message
MAX_TEXT = 200  # characters of a path or of another library's message quoted in a message


def describe(error: ValidationError, model: type[BaseModel], data: object = None) -> str:
    """The first problem of `error` as a phrase, with the number of further problems of the same type.

    An unknown key comes first, since a misspelled key is also a missing one. With `data`, the validated value, the
    parts of pydantic's location that are not keys (the members of a union) are omitted.
    """
    problem = first_problem(error)
    keys = key_path(problem, data)
    name = brief(".".join(map(str, keys)))
    if problem["type"] == "extra_forbidden":
        phrase = unknown_key(keys, [field_name for field_name, _ in all_fields(model)])
    elif problem["type"] == "missing":
        phrase = f"key '{missing_key(model, name)}' is missing"
    elif problem["type"] == "union_tag_invalid":
        phrase = f"{name}.{_wrong_tag(problem)}"
    else:
        reason = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        value = f"{name} = {shorten(problem['input'])}: " if keys else ""
        phrase = f"{value}{reason[:1].lower()}{reason[1:]}"
    # Every member of a union reports the same value, so locations are counted without union tags.
    same = {key_path(other, data) for other in _problems(error) if other["type"] == problem["type"]}
    return phrase if len(same) == 1 else f"{phrase} (and {len(same) - 1} more)"


def first_problem(error: ValidationError) -> ErrorDetails:
    """The problem to report: the first unknown key, else the first problem."""
    problems = _problems(error)
    return next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])


def key_path(problem: ErrorDetails, data: object = None) -> tuple[str | int, ...]:
    """The keys and list indices that lead to the problem."""
    location = problem["loc"]
    if data is None:
        return location
    keys: list[str | int] = []
    for position, part in enumerate(location):
        in_list = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]  # type: ignore[index]
        elif not (problem["type"] == "missing" and position == len(location) - 1):
            continue
        keys.append(part)
    return tuple(keys)


def shorten(value: object) -> str:
    """The value's `repr`, truncated to `MAX_SHOWN` characters."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def brief(text: object) -> str:
    """A path or another library's message on one line, the middle omitted if it exceeds `MAX_TEXT` characters."""
    line = str(text)
    if len(line.splitlines()) > 1:
        line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT // 2]}...{line[3 - MAX_TEXT // 2 :]}"


def missing_key(model: type[BaseModel], name: str) -> str:
    """The key to set if `name` is missing: `name`, or the first required key inside it if it is a section."""
    inner = [key for key, field in all_fields(model) if key.startswith(name + ".") and field.is_required()]
    return next((key for key in inner if not any(other.startswith(key + ".") for other in inner)), name)


def _wrong_tag(problem: ErrorDetails) -> str:
    """The phrase for an unknown tag of a union: the key, the value, and the nearest name or all names."""
    context = problem["ctx"]
    known = [part.strip(" '") for part in context["expected_tags"].split(",")]
    near = get_close_matches(context["tag"], known, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return f"{context['discriminator'].strip(chr(39))} = {shorten(context['tag'])} is unknown; {remedy}"


def _problems(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False)


def unknown_key(keys: tuple[str | int, ...], known: Sequence[str]) -> str:
    """The phrase for an unknown key, with the nearest of `known` (dotted keys), else the known keys of its section.

    The nearest key is searched first in the section, then by name anywhere.
    """
    name = brief(".".join(map(str, keys)))
    *section, key = (str(part) for part in keys if isinstance(part, str))
    prefix = "".join(f"{part}." for part in section)
    inside = [other[len(prefix) :] for other in known if other.startswith(prefix)]
    neighbors = list(dict.fromkeys(other for other in inside if "." not in other))
    near = [prefix + found for found in get_close_matches(key, neighbors, n=1)]
    elsewhere = get_close_matches(key, [other.rpartition(".")[2] for other in known], n=1)
    near += [other for other in known if other.rpartition(".")[2] in elsewhere]
    if near:
        return f"unknown key '{name}'; did you mean '{near[0]}'?"
    return f"unknown key '{name}'" + (f"; known keys here: {', '.join(neighbors)}" if neighbors else "")


def all_fields(
    model: type[BaseModel], prefix: str = "", above: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[str, FieldInfo]]:
    """All dotted keys of a model, sections before their keys; a section that contains itself is entered once."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for section in sections(field.annotation):
            if section not in (*above, model):
                yield from all_fields(section, f"{prefix}{name}.", (*above, model))


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value of this annotation may be an instance of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections(argument)


@dataclass(frozen=True)
class Outline:
    """Dotted keys, sections before their keys; the content of an `opaque` key can only be checked by the class."""

    known: tuple[str, ...]
    opaque: frozenset[str] = frozenset()

    def unknown(self, data: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
        """The locations of keys in `data` that the outline does not have."""
        return self._unknown(data, ())

    def _unknown(self, data: Mapping[str, Any], above: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        for key, value in data.items():
            place = (*above, key)
            name = ".".join(str(part) for part in place if not isinstance(part, int))
            if name not in self.known:
                yield place
            elif name not in self.opaque:
                several = value if isinstance(value, list) else [value]
                for number, inner in enumerate(several):
                    if isinstance(inner, Mapping) and any(other.startswith(f"{name}.") for other in self.known):
                        yield from self._unknown(inner, (*place, number) if isinstance(value, list) else place)


def build_outline(model: type[BaseModel]) -> Outline:
    """Collect the keys of a model."""
    known: dict[str, None] = {}
    opaque: set[str] = set()

    def walk(section: type[BaseModel], prefix: str, above: tuple[type[BaseModel], ...]) -> None:
        for name, field in section.model_fields.items():
            known[prefix + name] = None
            inner = list(sections(field.annotation))
            if _holds_mapping(field.annotation) or any(
                each in (*above, section) or each.model_config.get("extra") == "allow" for each in inner
            ):
                opaque.add(prefix + name)
                continue
            for each in inner:
                walk(each, f"{prefix}{name}.", (*above, section))

    walk(model, "", ())
    return Outline(tuple(known), frozenset(opaque))


def _holds_mapping(annotation: Any) -> bool:
    """Whether the annotation contains a mapping, whose keys are free."""
    origin = get_origin(annotation) or annotation
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return is_mapping or any(map(_holds_mapping, get_args(annotation)))
