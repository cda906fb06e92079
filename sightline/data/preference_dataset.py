"""Directories of preference pairs that `datasets.load_dataset` opens and TRL trains on.

It converts between `pairs.jsonl` (written while pairs are built) and Parquet with embedded images, and neither creates
nor filters pairs. `builders` creates them, `train` uses them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from sightline.config.problems import brief, describe, shorten
from sightline.data.images import image_path, keep_embedded, open_image
from sightline.data.turns import content_entries, messages, to_turns
from sightline.errors import InputError
from sightline.records.decoding import strict_json
from sightline.records.hashing import hash_file
from sightline.records.rows import Pair
from sightline.records.store import atomic_write, numbered_rows

PAIRS = "pairs.jsonl"
PARQUET = "data/train-00000-of-00001.parquet"
_GROUP_ROWS, _GROUP_BYTES = 256, 32 * 2**20  # a row group is written when it has this many rows or bytes of images

_CARD = """---
configs:
- config_name: pairs-{content}
  data_files:
  - split: train
    path: data/*.parquet
task_categories:
- image-text-to-text
tags:
- preference
- dpo
- vision-language
- sightline
---
# Preference pairs

{count} pairs of answers to prompts about images, made by Sightline ({builders}). The folder opens with
`datasets.load_dataset(FOLDER)`, and TRL's `DPOTrainer` trains on it as it is.

| column | what it holds |
| --- | --- |
| `images` | the images of the prompt, in order |
| `prompt` | the turns up to the user's last, with an entry of type `image` where each image stands |
| `chosen`, `rejected` | one assistant turn each |
| `second_rejected` | a second worse answer, for averaged DPO; mostly none |
| `chosen_spans`, `rejected_spans` | characters `[start, end)` that a correction changed; mostly none |
| `id`, `cluster` | the row, and the group of rows that belong together (all on one image) |
| `builder`, `provenance` | what made the pair, and how, as JSON |
| `media` | what each image is, for a model composed of several kinds; mostly none |

`pairs.jsonl`, where it lies beside this file, holds the same rows as plain text; `manifest.json` says what
they were made from.
"""


def read_pairs(directory: Path) -> Iterator[Pair]:
    """The pairs of a directory in order, from `pairs.jsonl` or else from the Parquet files.

    Images that exist only in the Parquet files are first written to `images/`, so that all paths are relative to the
    directory. Memory holds only the ids.

    Raises:
        InputError: neither exists (raised at the call); a row is invalid, an id is repeated, a prompt or answer is
            empty, or an image is missing or outside the directory.
    """
    if (directory / PAIRS).exists():
        return _checked(_from_jsonl(directory), directory)
    files = sorted(path for path in directory.glob("data/*.parquet") if path.is_file())
    if not files:
        raise InputError(f"{directory} holds neither {PAIRS} nor data/*.parquet; name a directory of pairs")
    return _checked(_from_parquet(directory, files), directory)


def pair_place(directory: Path, pair_id: str) -> str:
    """The location of a pair, for errors: file and line or row; the directory if the id is not found.

    Raises:
        InputError: as in `read_pairs`, for a file or an earlier row.
    """
    if (directory / PAIRS).exists():
        placed = _from_jsonl(directory)
    else:
        placed = _from_parquet(directory, sorted(directory.glob("data/*.parquet")))
    return next((where.partition(" (id ")[0] for where, pair in placed if pair.id == pair_id), str(directory))


def write_preference_dataset(directory: Path) -> int:
    """Write the Parquet file, images embedded, and the dataset card for `pairs.jsonl`; returns the number of pairs.

    Memory holds one row group. All images are decoded again, so that no damaged one is published.

    Raises:
        InputError: as in `read_pairs`, or an image is damaged.
    """
    if not (directory / PAIRS).exists():
        raise InputError(f"{directory / PAIRS} does not exist; build pairs first")
    schema = preference_schema()
    builders: set[str] = set()
    count = 0
    with (
        atomic_write(directory / PARQUET) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for group in _groups(read_pairs(directory), directory):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            builders.update(row["builder"] for row in group)
            count += len(group)
    with atomic_write(directory / "README.md") as temporary:
        # `datasets` caches by the names of folder and configuration: without the content hash in the latter, another
        # folder of the same name would load these pairs.
        content = hash_file(directory / PARQUET)[:12]
        card = _CARD.format(content=content, count=count, builders=", ".join(sorted(builders)) or "no builder")
        temporary.write_text(card, encoding="utf-8")
    return count


def preference_schema() -> pa.Schema:
    """The Arrow schema of the columns, with the metadata that makes `datasets` decode images."""
    from datasets import Features, Image, List, Value  # imported late: it takes a second

    text = Value("string")
    turns = List({"role": text, "content": List({"type": text, "text": text})})
    features = Features(
        {
            "images": List(Image()),
            "prompt": turns,
            "chosen": turns,
            "rejected": turns,
            "id": text,
            "cluster": text,
            "builder": text,
            "provenance": text,
            "second_rejected": text,
            "chosen_spans": List(List(Value("int32"))),
            "rejected_spans": List(List(Value("int32"))),
            "media": List(text),
        }
    )
    return features.arrow_schema


def _groups(pairs: Iterable[Pair], directory: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows of the Parquet file, collected into row groups of bounded size."""
    group: list[dict[str, Any]] = []
    size = 0
    for pair in pairs:
        row = _row(pair, directory)
        group.append(row)
        size += sum(len(image["bytes"]) for image in row["images"])
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _row(pair: Pair, directory: Path) -> dict[str, Any]:
    images = []
    for name in pair.images:
        where = f"{directory / PAIRS} (id {shorten(pair.id)})"
        path = image_path(directory, name, where)
        open_image(path, where)
        images.append({"bytes": path.read_bytes(), "path": name})
    turns = messages(pair.history, pair.prompt, len(images), f"{directory / PAIRS} (id {shorten(pair.id)})")
    return {
        "images": images,
        "prompt": [_message(role, entries) for role, entries in turns],
        "chosen": [_message("assistant", [pair.chosen])],
        "rejected": [_message("assistant", [pair.rejected])],
        "second_rejected": pair.second_rejected,
        "chosen_spans": pair.chosen_spans,
        "rejected_spans": pair.rejected_spans,
        "id": pair.id,
        "cluster": pair.cluster,
        "builder": pair.builder,
        "provenance": json.dumps(pair.provenance, ensure_ascii=False),
        "media": pair.media,
    }


def _message(role: str, entries: Sequence[str | None]) -> dict[str, Any]:
    return {
        "role": role,
        "content": [{"type": "image" if entry is None else "text", "text": entry} for entry in entries],
    }


def _from_jsonl(directory: Path) -> Iterator[tuple[str, Pair]]:
    for line, pair in numbered_rows(directory / PAIRS, Pair):
        yield f"{directory / PAIRS} line {line} (id {shorten(pair.id)})", pair


def _from_parquet(directory: Path, files: Iterable[Path]) -> Iterator[tuple[str, Pair]]:
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                number = 0
                for batch in file.iter_batches(batch_size=32):
                    for row in batch.to_pylist():
                        number += 1
                        where = f"{path} row {number} (id {shorten(row.get('id'))})"
                        yield where, pair_from_columns(row, directory, where)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} cannot be read as Parquet ({reason}); create or fetch it again") from error


def pair_from_columns(row: Mapping[str, Any], directory: Path, where: str) -> Pair:
    """A row of the Parquet file as a `Pair`; each answer has one turn."""
    try:
        history, prompt = to_turns((turn["role"], content_entries(turn["content"])) for turn in row["prompt"])
        columns = {
            "id": row["id"],
            "media": row.get("media") or (),
            "history": history,
            "prompt": prompt,
            "chosen": _text(row["chosen"]),
            "rejected": _text(row["rejected"]),
            "second_rejected": row.get("second_rejected"),
            "chosen_spans": row.get("chosen_spans") or (),
            "rejected_spans": row.get("rejected_spans") or (),
            "builder": row["builder"],
            "cluster": row["cluster"],
            "provenance": strict_json(row["provenance"]),
        }
        images = row["images"] or []
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: not a row of Sightline's preference columns ({brief(repr(error))}); write the dataset again"
        ) from error
    try:
        return Pair(images=tuple(_extracted(image, directory, where) for image in images), **columns)
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error, Pair)}; write the dataset again") from error


def _text(turns: Any) -> str:
    """The text of a column with one turn."""
    if len(turns) != 1:
        raise ValueError(f"{len(turns)} turns instead of 1")
    return "".join(entry for entry in content_entries(turns[0]["content"]) if entry is not None)


def _extracted(image: Mapping[str, Any], directory: Path, where: str) -> str:
    """The relative name of the file with an embedded image's bytes; the file is written if missing."""
    data: bytes | None = image["bytes"]
    name: str = image["path"] or ""
    if data is None:
        image_path(directory, name, where)
        return name
    inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
    if inside and (directory / name).is_file() and (directory / name).read_bytes() == data:
        return name
    return keep_embedded(data, name, directory)


def _checked(rows: Iterable[tuple[str, Pair]], directory: Path) -> Iterator[Pair]:
    seen: set[str] = set()
    for where, pair in rows:
        if not pair.id or pair.id in seen:
            raise InputError(
                f"{where}: {'the id is empty' if not pair.id else 'this id occurs twice'}; give it another"
            )
        for column in ("prompt", "chosen", "rejected"):
            if not getattr(pair, column).strip():
                raise InputError(f"{where}: '{column}' is empty; write it or delete the row")
        for name in pair.images:
            image_path(directory, name, where)
        seen.add(pair.id)
        yield pair
