"""The keys of a config without its class: what is needed to find a misspelled key before torch is imported.

Some configs stand beside code that needs torch, which takes seconds to import. Their outlines are kept as data beside
the commands (`sightline.cli.early`); whether values are right, the class says later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from sightline.config.problems import sections


@dataclass(frozen=True)
class Outline:
    """Keys with dots, those of sections before what is in them; `opaque` ones hold what only the class can judge."""

    known: tuple[str, ...]
    opaque: frozenset[str] = frozenset()

    def unknown(self, data: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
        """The places of keys that are none of these."""
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


def outline_of(model: type[BaseModel]) -> Outline:
    """The outline of a model."""
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
    """Whether keys of the user's own may stand there."""
    origin = get_origin(annotation) or annotation
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return is_mapping or any(map(_holds_mapping, get_args(annotation)))
