"""The import stage: converts local files of a layout to a directory of pairs or samples, with images.

All rows are read twice: once to find errors before the directory is claimed, once to write.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import PydanticSerializationError

from sightline.config.problems import describe, shorten
from sightline.data.formats.layout import (
    IMAGE_TROUBLE,
    BadRow,
    Dropped,
    FileLayout,
    ImageSource,
    LayoutConfig,
    RecordDraft,
)
from sightline.data.formats.raw import Raw, data_files, read_raw
from sightline.data.formats.registry import AUTO, detect_layout, get_layout
from sightline.data.images import adopt_by_content, image_path, keep_embedded, open_embedded, open_image
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.samples import write_samples
from sightline.data.terminal import Progress, with_progress
from sightline.errors import InputError
from sightline.records.manifest import MANIFEST, Manifest, Stage
from sightline.records.rows import Pair, Sample
from sightline.records.store import write_rows

#: Finds or stores an image and returns its name in the new directory; the second argument locates the row, for errors.
Keep = Callable[[ImageSource, str], str]


class ImportConfig(LayoutConfig):
    """The config of an import. Images are not hashed: they count by their paths."""

    layout: str = Field(description="name of the layout of the rows")
    prefix: str = Field(description="prefix of the ids of the imported rows")


@dataclass(frozen=True)
class ImportRequest:
    """An import: images are searched below `images` (default: beside the files); ids start with `prefix`."""

    place: Path
    layout: str = AUTO
    images: Path | None = None
    prefix: str = ""
    skip_bad: bool = False
    read: LayoutConfig = field(default_factory=LayoutConfig)


@dataclass
class _Tally:
    """Counts of rows, records and dropped rows."""

    rows: int = 0
    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    own_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Source:
    """The resolved source of an import."""

    files: list[Path]
    layout: FileLayout
    images: Path
    config: ImportConfig
    skip_bad: bool


def import_layout(request: ImportRequest, out: Path, progress: Progress | None = None) -> Manifest:
    """Read local files of a layout and write a directory of pairs or samples; `progress` is called after each row.

    Rows without a training signal (ties, equal or empty answers) are dropped and counted. Rows that violate the layout
    are errors, or, with `skip_bad`, dropped and counted too.

    Raises:
        InputError: files or layout are missing or unknown, a row violates the layout, an image is missing, damaged or
            remote, or no row is left.
    """
    source = _source(request)
    total = _checked(source, request.place) if not (out / MANIFEST).exists() else 0
    inputs = {f"rows_{number}": path for number, path in enumerate(source.files)}
    # `skip_bad` is not part of the config: if it changes the result, there is no result without it.
    stage = Stage.open(out, f"import {source.layout.name}", source.config, inputs)
    if stage.done:
        return stage.manifest
    tally = _Tally()
    rows = with_progress(read_raw(source.files), progress, total or _checked(source, request.place))
    records = _records(source, rows, _storing(source.images, out), tally)
    if source.layout.record is Pair:
        write_rows(out / PAIRS, records)
        _require_some(tally, request.place)
        write_preference_dataset(out)
    else:
        write_samples(out, (record for record in records if isinstance(record, Sample)))
        _require_some(tally, request.place)
    kind = "pairs" if source.layout.record is Pair else "samples"
    return stage.finish(counts={"rows": tally.rows, kind: tally.records}, dropped=tally.dropped)


def _source(request: ImportRequest) -> _Source:
    files = data_files(request.place)
    layout = detect_layout(read_raw(files)) if request.layout == AUTO else get_layout(request.layout)
    images = request.images or (request.place if request.place.is_dir() else request.place.parent)
    if not images.is_dir():
        raise InputError(f"images folder {images} does not exist; check --images")
    chosen = {"layout": layout.name, "prefix": request.prefix or layout.name}
    config = ImportConfig.model_validate(request.read.model_dump() | chosen)
    return _Source(files, layout, images, config, request.skip_bad)


def _checked(source: _Source, place: Path) -> int:
    """The number of rows, after reading all of them and finding (not decoding) their images."""

    def find(picture: ImageSource, where: str) -> str:
        if picture.data is None:
            image_path(source.images, _below(source.images, picture.name), where)
        return f"images/{picture.name}"

    tally = _Tally()
    for _ in _records(source, read_raw(source.files), find, tally):
        pass
    _require_some(tally, place)
    return tally.rows


def _require_some(tally: _Tally, place: Path) -> None:
    if not tally.records:
        dropped = f" (dropped: {dict(tally.dropped)})" if tally.dropped else ""
        raise InputError(f"{place}: of {tally.rows} rows none is left{dropped}; check the layout and its config")


def _storing(images: Path, out: Path) -> Keep:
    """A function that stores images in `out`, decoding each once to refuse damaged ones; memory holds their names."""
    intact: set[str] = set()

    def keep(picture: ImageSource, where: str) -> str:
        if picture.data is not None:
            open_embedded(picture.data, picture.name or "in the row", where)
            return keep_embedded(picture.data, picture.name, out)
        name = _below(images, picture.name)
        if name not in intact:
            open_image(image_path(images, name, where), where)
            intact.add(name)
        return adopt_by_content(images, name, out, where)

    return keep


def _below(images: Path, name: str) -> str:
    """The name relative to the images folder; other trainers' files often have absolute paths into it."""
    root = images.absolute()
    return PurePosixPath(name).relative_to(root).as_posix() if PurePosixPath(name).is_relative_to(root) else name


def _records(source: _Source, rows: Iterator[Raw], keep: Keep, tally: _Tally) -> Iterator[Pair | Sample]:
    for raw in rows:
        tally.rows += 1
        try:
            found = _records_in_row(source, raw, keep, tally)
        except (BadRow, InputError) as error:
            if not source.skip_bad:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{raw.where}: {error}; correct it, or drop such rows with --skip-bad") from error
            tally.dropped[error.reason if isinstance(error, BadRow) else IMAGE_TROUBLE] += 1
            continue
        tally.records += len(found)
        yield from found


def _records_in_row(source: _Source, raw: Raw, keep: Keep, tally: _Tally) -> list[Pair | Sample]:
    """All records of one row, or BadRow or InputError."""
    if raw.problem:
        raise BadRow(raw.problem)
    read = list(source.layout.read(raw.columns, source.config))
    drafts = [one for one in read if isinstance(one, RecordDraft)]
    records = []
    for number, draft in enumerate(drafts, 1):
        suffix = f"-{number}" if len(drafts) > 1 else ""
        images = tuple(keep(picture, raw.where) for picture in draft.pictures)
        records.append(_record(source, raw, draft, images, f"{source.config.prefix}-{tally.rows:08d}{suffix}"))
    own = [record.id for draft, record in zip(drafts, records, strict=True) if "id" in draft.fields]
    if len({*own}) < len(own) or tally.own_ids & {*own}:
        raise BadRow(f"id {shorten(own[0])} occurs twice")
    tally.own_ids.update(own)
    tally.dropped.update(one.reason for one in read if isinstance(one, Dropped))
    return records


def _record(source: _Source, raw: Raw, draft: RecordDraft, images: tuple[str, ...], row_id: str) -> Pair | Sample:
    fields: dict[str, Any] = {"id": row_id, "images": images, "cluster": "+".join(map(_stem, images)) or row_id}
    if source.layout.record is Pair:
        origin = {"file": raw.path.name, "row": raw.number, **draft.provenance}
        fields |= {"builder": source.layout.name, "provenance": origin}
    elif source.layout.task_of is not None:
        fields["task"] = source.layout.task_of(raw.path)
    try:
        record = source.layout.record.model_validate(fields | draft.fields)
        record.model_dump_json()
    except ValidationError as error:
        raise BadRow(describe(error, source.layout.record)) from error
    except PydanticSerializationError as error:  # a lone surrogate, which JSON can represent and UTF-8 cannot
        raise BadRow("a text is not valid Unicode") from error
    return record


def _stem(name: str) -> str:
    """The image name without its suffix, which names the cluster of its rows."""
    return PurePosixPath(name).stem
