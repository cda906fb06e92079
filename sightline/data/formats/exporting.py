"""The export stage: writes a directory of pairs, with its images, in the layout of another trainer."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field

from sightline.config import Config
from sightline.config.problems import shorten
from sightline.data.formats import llama_factory, ms_swift
from sightline.data.images import adopt_image, open_image
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.data.terminal import Progress, with_progress
from sightline.errors import InputError
from sightline.records.manifest import Manifest, Stage
from sightline.records.rows import Pair
from sightline.records.store import atomic_write, write_rows


class ExportConfig(Config):
    """The config of an export."""

    layout: str = Field(description="name of the layout to write")


@dataclass(frozen=True)
class Target:
    """An export layout: its help text, and the function that writes pairs to a directory that has their images."""

    summary: str
    write: Callable[[Path, Iterator[Pair]], None]


def _write_own(directory: Path, pairs: Iterator[Pair]) -> None:
    write_rows(directory / PAIRS, pairs)
    write_preference_dataset(directory)


def _write_llama_factory(directory: Path, pairs: Iterator[Pair]) -> None:
    """Write one JSON array and `dataset_info.json`."""
    lines = _lines(directory, pairs, llama_factory.to_row)
    _write_text(directory / llama_factory.FILE, _array(lines))
    llama_factory.write_info(directory)


def _write_ms_swift(directory: Path, pairs: Iterator[Pair]) -> None:
    _write_text(directory / ms_swift.FILE, (f"{line}\n" for line in _lines(directory, pairs, ms_swift.to_row)))


TARGETS: dict[str, Target] = {
    "trl": Target("the Parquet folder that datasets and TRL open, as in every directory of pairs", _write_own),
    "llama-factory": Target("ShareGPT preferences in JSON, with dataset_info.json", _write_llama_factory),
    "ms-swift": Target("messages with rejected_response in JSONL", _write_ms_swift),
}


def export_pairs(layout: str, pairs: Path, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the pairs of a directory in another layout; `progress(done, total)` is called after each pair.

    Raises:
        InputError: the layout is unknown, pairs are missing or invalid, the layout cannot represent a pair, or an image
            cannot be opened.
    """
    if layout not in TARGETS:
        near = get_close_matches(layout, TARGETS, n=1, cutoff=0.0)[0]
        raise InputError(f"unknown export layout {layout!r}; did you mean {near!r}?")
    total = sum(1 for _ in read_pairs(pairs))
    stage = Stage.open(out, f"export {layout}", ExportConfig(layout=layout), {"pairs": pairs})
    if stage.done:
        return stage.manifest
    TARGETS[layout].write(out, _with_images(with_progress(read_pairs(pairs), progress, total), pairs, out))
    return stage.finish(counts={"pairs": total})


def _with_images(pairs: Iterable[Pair], source: Path, out: Path) -> Iterator[Pair]:
    """The pairs, each after its images are copied."""
    for pair in pairs:
        for image in pair.images:
            adopt_image(source, image, out, str(out))
        yield pair


def _lines(directory: Path, pairs: Iterator[Pair], to_row: Callable[[Pair, str], dict[str, Any]]) -> Iterator[str]:
    """The rows as JSON. Each image is decoded, since another trainer would stop at a damaged one."""
    intact: set[str] = set()
    for pair in pairs:
        where = f"pair {shorten(pair.id)}"
        for image in pair.images:
            if image not in intact:
                open_image(directory / image, where)
                intact.add(image)
        yield json.dumps(to_row(pair, where), ensure_ascii=False)


def _array(lines: Iterator[str]) -> Iterator[str]:
    separator = "["
    for line in lines:
        yield f"{separator}\n{line}"
        separator = ","
    yield "\n]\n" if separator == "," else "[]\n"


def _write_text(path: Path, parts: Iterable[str]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)
