"""The YAML that configs are written in: plain values of YAML 1.2, bounded in size, every mistake at its line.

A config is untrusted text. An alias costs nothing to write and may stand for much, so that values are counted with all
aliases expanded; a number must fit the types that compute with it; tags that no config needs are refused.
"""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

#: The most values that a config may hold, each alias counted as all that it stands for.
MOST_VALUES = 100_000
#: Whole numbers lie within 64 bits, as those of JSON readers, NumPy and torch do.
LARGEST_INTEGER = 2**63 - 1
_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, too large, or holds a value that is refused.
        RecursionError: it is nested too deeply.
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
    """Refuse a document of more than `MOST_VALUES` values, aliases expanded; an alias inside what it names is endless.

    Each node is counted once, however often it is named, so that this takes as long as the text is.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in above:
            raise ConstructorError(problem="an alias stands for what it is part of", problem_mark=node.start_mark)
        if id(node) not in sizes:
            above.add(id(node))
            inner = node.value
            nodes = (part for pair in inner for part in pair) if isinstance(node, yaml.MappingNode) else inner
            sizes[id(node)] = 1 + sum(map(size, nodes))
            above.remove(id(node))
            if sizes[id(node)] > MOST_VALUES:
                problem = f"more than {MOST_VALUES:,} values, with every alias (*name) written out"
                raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        return sizes[id(node)]

    size(root)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values, since 1.1 reads `1e-4` as text, `off` as false and `12:30` as 750; no key twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - pyyaml's own name

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag.startswith(_TAG) and node.tag not in _KNOWN_TAGS and ":python/" not in node.tag:
            problem = f"the tag !!{node.tag.removeprefix(_TAG)} is not supported here"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML converts what a tag says without looking at the text
            problem = f"{_shown(node)} is no {node.tag.removeprefix(_TAG)}"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # a tag may say so of anything
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                if key.value in seen:
                    raise ConstructorError(problem=f"key '{key.value}' is written twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        # Python converts no more than some thousand digits, and takes long for many
        if len(node.value) <= len(str(LARGEST_INTEGER)) + 1:
            value: int = super().construct_yaml_int(node)
            if abs(value) <= LARGEST_INTEGER:
                return value
        problem = f"the whole number {_shown(node)} is beyond {LARGEST_INTEGER} (64 bits)"
        raise ConstructorError(problem=problem, problem_mark=node.start_mark)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if math.isinf(value) and "inf" not in node.value.lower():
            problem = f"the number {_shown(node)} is too large for a float"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        return value


def _shown(node: yaml.Node) -> str:
    """What was written, cut short."""
    text = repr(node.value) if isinstance(node, yaml.ScalarNode) else "what stands there"
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
