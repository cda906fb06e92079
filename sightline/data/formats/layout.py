"""The interface of layouts: a reader turns a row into record drafts, or into the reason for dropping it.

`importing` stores the images of a draft and creates the record.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sightline.config import Config
from sightline.config.problems import shorten
from sightline.data.formats.raw import NotEmbedded, embedded_picture
from sightline.records.decoding import NotStrict, strict_json
from sightline.records.rows import Pair, Sample

MALFORMED, IMAGE_TROUBLE = "malformed", "image missing, remote or damaged"
TIE, SAME = "tie", "rejected equals chosen"
Columns = Mapping[str, Any]

#: RFC 3986.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class LayoutConfig(Config):
    """Options of the readers, for layouts that leave a choice."""

    ranked: Literal["best-worst", "all"] = Field(
        default="best-worst", description="pairs of a row with several rated answers (VLFeedback)"
    )
    aspects: tuple[str, ...] = Field(
        default=("Helpfulness", "Visual Faithfulness", "Ethical Considerations"),
        min_length=1,
        description="ratings whose mean is an answer's score (VLFeedback; its authors train on all three)",
    )
    turns: Literal["last", "every"] = Field(
        default="last", description="samples of a conversation: of its last answer, or of every one (LLaVA-Instruct)"
    )


class BadRow(Exception):
    """A row that violates its layout: an error, or, with `--skip-bad`, counted under `reason`."""

    def __init__(self, problem: str, reason: str = MALFORMED) -> None:
        super().__init__(problem)
        self.reason = reason


@dataclass(frozen=True)
class ImageSource:
    """An image of a row: its bytes, or else the name of a file below the images folder."""

    name: str
    data: bytes | None = None


@dataclass(frozen=True)
class RecordDraft:
    """A record before its images are stored: image sources, other fields, and provenance."""

    pictures: tuple[ImageSource, ...]
    fields: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """A valid row, or a comparison in it, without a training signal."""

    reason: str


Drafts = Iterator[RecordDraft | Dropped]


@dataclass(frozen=True)
class FileLayout:
    """An import layout. `fits` recognizes its rows by their columns; `read` raises `BadRow`.

    `task_of` derives the task of a file's samples from its name.
    """

    name: str
    summary: str
    fits: Callable[[Columns], bool]
    read: Callable[[Columns, LayoutConfig], Drafts]
    record: type[Pair] | type[Sample] = Pair
    task_of: Callable[[Path], str] | None = None


def has_columns(columns: Columns, *names: str) -> bool:
    """Whether the row has all these columns, with a value."""
    return all(columns.get(name) is not None for name in names)


def text_column(columns: Columns, name: str) -> str:
    """The value of a column that must be text."""
    if name not in columns:
        raise BadRow(f"column {name!r} is missing")
    value = columns[name]
    if not isinstance(value, str):
        raise BadRow(f"{name} = {shorten(value)} is not a text")
    return value


def parse_object(text: str, name: str) -> dict[str, Any]:
    """The value of a text column that must be a JSON object."""
    try:
        value = strict_json(text)
    except NotStrict as error:
        raise BadRow(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{name} = {shorten(text)} is not JSON") from error
    if not isinstance(value, dict):
        raise BadRow(f"{name} = {shorten(text)} is not a JSON object")
    return value


def image_sources(columns: Columns, *names: str) -> tuple[ImageSource, ...]:
    """The images of the first of these columns with a value: one or a list of bytes, base64 texts, paths or structs."""
    value = next((columns[name] for name in names if columns.get(name) is not None), None)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_picture(one) for one in values)


def provenance_columns(columns: Columns, *names: str) -> dict[str, Any]:
    """The columns with a text or a number, for the provenance."""
    values = {name: columns.get(name) for name in names}
    # NaN, which tables use for missing values, is not JSON.
    return {name: value for name, value in values.items() if isinstance(value, str | int | float) and value == value}


def _picture(value: object) -> ImageSource:
    if isinstance(value, bytes):
        return ImageSource("", value)
    if isinstance(value, Mapping):
        name, data = value.get("path") or "", value.get("bytes")
        if isinstance(data, bytes) and isinstance(name, str):
            return ImageSource(name, data)
        value = name
    if not isinstance(value, str) or not value:
        raise BadRow(f"image {shorten(value)} is neither bytes nor a path", IMAGE_TROUBLE)
    try:
        if (embedded := embedded_picture(value)) is not None:
            return ImageSource(*embedded)
    except NotEmbedded as error:
        raise BadRow(f"image {shorten(value)} {error}", IMAGE_TROUBLE) from error
    if _SCHEME.match(value):
        raise BadRow(f"image {shorten(value)} is a URL and not a path; download it first", IMAGE_TROUBLE)
    return ImageSource(value)
