"""Errors for compressed files and other encodings, and strict JSON."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.records import Pair, Sample, read_rows
from sightline.records.decoding import (
    LenientDecoder,
    NotStrict,
    first_undecodable,
    require_text,
    strict_json,
    undecodable,
)

LINE = '{"id": "a", "prompt": "Où?"}\n'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(LINE.encode(), mtime=0), "is gzip and not text; unpack it with `gunzip -c rows.jsonl > NEW`"),
        (bz2.compress(LINE.encode()), "is bzip2 and not text"),
        (lzma.compress(LINE.encode()), "is xz and not text"),
        (b"PK\x03\x04rest", "is a ZIP archive and not text"),
        (b"PAR1rest", "is Parquet and not text"),
        (
            LINE.encode("utf-16"),
            "is UTF-16 (byte order mark FF FE at byte 0) and not UTF-8; convert it with `iconv -f UTF",
        ),
        (b"\xfe\xff" + LINE.encode("utf-16-be"), "is UTF-16 (byte order mark FE FF at byte 0)"),
        (LINE.encode("utf-32"), "is UTF-32 (byte order mark FF FE 00 00 at byte 0)"),
        (LINE.encode("utf-16-le"), "seems to be UTF-16LE (byte 1 is 0x00)"),
        (LINE.encode("utf-16-be"), "seems to be UTF-16BE (byte 0 is 0x00)"),
    ],
)
def test_a_file_that_is_no_utf_8_text_is_called_by_its_name(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    for read in (lambda: require_text(path), lambda: read_rows(path, Sample)):
        with pytest.raises(InputError) as caught:
            read()
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", LINE.encode(), b"\xef\xbb\xbf" + LINE.encode(), b'{"a": "\0"}', b"\xff"]
)
def test_other_files_are_left_to_their_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    require_text(path)


def test_the_first_byte_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    assert undecodable("Où?".encode()) is None
    assert (
        undecodable("Où?".encode("latin-1"), 100) == "byte 101 is 0xF9, which is not UTF-8 (Latin-1 or Windows-1252?)"
    )
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINE.encode() * 2 + LINE.encode("latin-1"))
    at = 2 * len(LINE.encode()) + LINE.index("ù")
    with pytest.raises(
        InputError, match=rf"rows\.jsonl line 3: byte {at} is 0xF9, .*iconv -f WINDOWS-1252 -t UTF-8 rows"
    ):
        list(read_rows(path, Sample))
    with path.open("rb") as file:
        assert file.read()[at] == 0xF9
    assert str(first_undecodable(path)).startswith(f"byte {at} is 0xF9")
    path.write_bytes(b"\xef\xbb\xbf" + LINE.encode("latin-1"))
    with pytest.raises(InputError, match=f"byte {3 + LINE.index('ù')} is"):
        list(read_rows(path, Sample))


def test_a_long_line_is_searched_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"a" + "é".encode() * 2**20)  # a piece of an even size ends within a character
    assert first_undecodable(path) is None
    with path.open("ab") as file:
        file.write(b"\xe9.")
    assert str(first_undecodable(path)).startswith(f"byte {2**21 + 1} is 0xE9")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' occurs twice in one object"),
        ('{"a": [1e999]}', "number '1e999' is too large"),
        ('{"a": -1e400}', "number '-1e400' is too large"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(NotStrict, match=problem):
        strict_json(text)
    decoder = LenientDecoder()
    value, end = decoder.raw_decode(f"{text}, 5")
    assert (decoder.problem, end, isinstance(value, dict)) == (problem, len(text), True)
    path = tmp_path / "pairs.jsonl"
    sound = {"id": "a", "prompt": "?", "chosen": "A", "rejected": "B", "builder": "b"}
    line = json.dumps(sound)[:-1]
    path.write_text(f'{line}}}\n{line}, "provenance": {text}}}\n')
    rows = read_rows(path, Pair)
    assert next(rows).id == "a"
    with pytest.raises(InputError, match=rf"pairs\.jsonl line 2: {problem}"):
        next(rows)


def test_strict_json_is_json() -> None:
    value = {"a": [1, 2.5, -1e300, True, None, {"b": "é"}], "": {}}
    assert strict_json(json.dumps(value)) == value == strict_json(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("given", "read"), [("7", "7"), ("7.0", "7"), ("12345678901", "12345678901"), ('"7.0"', "7.0")]
)
def test_whole_numbers_are_ids(tmp_path: Path, given: str, read: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(f'{{"id": {given}, "cluster": {given}, "prompt": "?"}}\n')
    (sample,) = read_rows(path, Sample)
    assert (sample.id, sample.cluster) == (read, read)


@pytest.mark.parametrize("given", ["7.5", "true", "NaN", "[7]"])
def test_other_values_are_no_ids(tmp_path: Path, given: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(f'{{"id": {given}, "prompt": "?"}}\n')
    with pytest.raises(InputError, match="line 1: id = "):
        list(read_rows(path, Sample))
