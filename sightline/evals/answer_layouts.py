"""Layouts of answer files, read as rows with their places for errors; rows are interpreted in `answer_reader`.

JSON lines, a JSON list, concatenated JSON objects (POPE's `caption_data`), `{id: text}`, CHAIR's `imgToEval`, LLaVA's
ScienceQA results, lmms-eval's logged samples, and VLMEvalKit's tables.
"""

import csv
import importlib
import importlib.util
import json
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.evals.answer_keys import MODEL_KEYS, OPEN_KEYS, QUESTION_KEYS

IDS = ("sample_id", "question_id", "questionId", "image_id", "id")
_NAMES = frozenset((*IDS, *MODEL_KEYS, *OPEN_KEYS, *QUESTION_KEYS, "doc_id"))
#: lmms-eval's keys of a sample's replies; the filtered one, which lmms-eval scores, goes first.
_REPLIES = ("filtered_resps", "resps")
_TABLES = {".tsv": "\t", ".csv": ","}
#: VLMEvalKit's row number, often without the list's own ids.
_TABLE_ID = "index"

Rows = Iterator[tuple[str, Any]]


def answer_rows(path: Path) -> Rows:
    """The rows of an answer file; files with one row a line are streamed.

    Raises:
        InputError: the file is empty, or the file or a row has none of the layouts.
    """
    if path.suffix.lower() in (".xlsx", ".xls"):
        yield from _table_rows(_excel_cells(path))
        return
    with path.open("rb") as file:
        lines = islice((line for line in file if line.strip()), 2)
        first, second = next(lines, b"").strip().removeprefix(b"\xef\xbb\xbf"), next(lines, None)
    if not first:
        raise InputError(f"answers {path} are empty; give one JSON object a line")
    if path.suffix.lower() in _TABLES or (b"\t" in first and not first.startswith((b"{", b"["))):
        yield from _table_rows(_table_cells(path, _TABLES.get(path.suffix.lower(), "\t")))
    elif first.startswith(b"[") or not _is_row(first, is_alone=second is None):
        yield from _json_rows(path)
    else:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path} line {number}"
                    yield where, _convert_lmms_eval(_parse_json(line, where), where)


def _is_row(line: bytes, *, is_alone: bool) -> bool:
    """Whether the first line is a complete row, not the start of a longer value and not a whole {id: text}."""
    try:
        value = json.loads(line)
    except ValueError:
        return line.startswith(b"{") and not line.rstrip().endswith((b"{", b"[", b",")) and b":" in line
    except RecursionError:
        return True  # reading it as a row then reports the error
    return not isinstance(value, dict) or not is_alone or not _NAMES.isdisjoint(value)


def _json_rows(path: Path) -> Rows:
    """The rows of one JSON value, or of several concatenated ones."""
    values = list(_json_values(path))
    rows: list[Any] = []
    for value in values:
        found = _unfold(value) if len(values) == 1 else value
        rows += found if isinstance(found, list) else [found]
    if len(values) == 1 and not isinstance(values[0], dict | list):
        raise InputError(f"answers {path} hold {shorten(values[0])}; give a list of objects, or one object a line")
    for number, row in enumerate(rows, 1):
        where = f"{path} entry {number}"
        yield where, _convert_lmms_eval(row, where)


def _unfold(value: Any) -> Any:
    """The rows in the object of a whole file."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("imgToEval"), dict):
        return list(value["imgToEval"].values())
    if isinstance(value.get("sentences"), list):
        return value["sentences"]  # Object HalBench's hall_*.json
    outputs, right, wrong = value.get("outputs"), value.get("correct"), value.get("incorrect")
    if isinstance(outputs, dict) and isinstance(value.get("results"), dict | list):
        return _texts_by_id(outputs)  # LLaVA's --output-result
    if isinstance(outputs, list) and all(isinstance(row, dict) for row in outputs):
        return outputs
    if isinstance(right, list) and isinstance(wrong, list):
        return right + wrong  # LLaVA's --output-file
    return value if not _NAMES.isdisjoint(value) else _texts_by_id(value)


def _texts_by_id(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"id": key, "text": text} for key, text in value.items()]


def _json_values(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    try:
        text = data.decode(json.detect_encoding(data)).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}); give one JSON object a line") from error
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON ({error}); give one JSON object a line") from error
        yield value


def _convert_lmms_eval(row: Any, where: str) -> Any:
    """A sample logged by lmms-eval as an answer row: ids and question of its document, and the reply; else the row.

    Keys of the document that may be the truth are dropped. Later versions log no document: the question is then the
    input, and the id is in the values of the metrics.
    """
    if not isinstance(row, dict) or "doc_id" not in row or all(name not in row for name in _REPLIES):
        return row
    doc = row["doc"] if isinstance(row.get("doc"), dict) else {}
    values = next((v for v in row.values() if isinstance(v, dict) and v is not doc and "question_id" in v), {})
    question = next((doc[key] for key in (*QUESTION_KEYS, "text") if isinstance(doc.get(key), str)), None)
    question = question or _first_text(row.get("input")) or _first_text(row.get("arguments"))
    name = next((name for name in _REPLIES if row.get(name) is not None), _REPLIES[0])
    reply = _first_text(row.get(name))
    if reply is None:
        raise InputError(f"{where}: {name} = {shorten(row.get(name))} holds no text; log samples of a generation task")
    found = {key: values[key] for key in ("question_id", "category") if key in values}
    found |= {key: value for key, value in doc.items() if key not in (*MODEL_KEYS, *OPEN_KEYS, *QUESTION_KEYS)}
    return found | ({} if question is None else {"question": question}) | {name: reply}


def _first_text(value: Any) -> str | None:
    """The first text of nested lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else None


def _table_rows(cells: Iterator[tuple[str, list[str]]]) -> Rows:
    """The rows of a table with a header; empty cells are left out."""
    place, header = next(cells, ("", []))
    names = [name.strip().removeprefix("\ufeff") for name in header]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"{place or 'the table'}: the header {shorten(names)} is empty or names a column twice; correct it"
        )
    numbered = _TABLE_ID in names and not any(name in names for name in IDS)
    for where, values in cells:
        if len(values) != len(names):
            raise InputError(f"{where}: {len(values)} values for {len(names)} columns; correct the row")
        row = {name: value for name, value in zip(names, values, strict=True) if value != ""}
        row |= {key: "" for key in names if key in (*MODEL_KEYS, *OPEN_KEYS) and key not in row}
        yield where, {**row, "id": row[_TABLE_ID]} if numbered and _TABLE_ID in row else row


def _table_cells(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if cells:
                    yield f"{path} line {reader.line_num}", cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a UTF-8 table ({error}); write it again as TSV or JSON") from error


def _excel_cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The first sheet of an Excel file, where openpyxl is installed."""
    if path.suffix.lower() != ".xlsx" or importlib.util.find_spec("openpyxl") is None:
        raise InputError(
            f"answers {path} is an Excel table; save it as TSV or JSON lines, or install openpyxl for .xlsx"
        )
    try:
        book = importlib.import_module("openpyxl").load_workbook(path, read_only=True, data_only=True)
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
            yield f"{path} row {number}", ["" if cell is None else str(cell) for cell in row]
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an Excel table ({error}); save it as TSV or JSON lines") from error


def _parse_json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)  # detects the encoding, with or without a byte order mark
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); give one JSON object a line") from error
