"""Rows on disk: round trips, kills at any moment, and errors with line numbers."""

import json
import os
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import InputError
from sightline.records import (
    Answer,
    Estimate,
    Pair,
    Row,
    Sample,
    Score,
    append_rows,
    atomic_write,
    numbered_rows,
    read_json,
    read_rows,
    sorted_rows,
    write_json,
    write_rows,
)
from sightline.records.ratings import LoggedRequest, TextStats

text = st.text(st.characters(exclude_categories=["Cs"]))
number = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
truth = st.dictionaries(text, plain, max_size=3)
samples = st.builds(
    Sample,
    id=text,
    images=st.tuples(text),
    prompt=text,
    reference=st.none() | text,
    task=text,
    cluster=text,
    truth=truth,
)
pairs = st.builds(Pair, id=text, prompt=text, chosen=text, rejected=text, builder=text, provenance=truth)
scores = st.builds(Score, sample_id=text, values=st.dictionaries(text, st.none() | number, max_size=3), details=truth)


def answers(count: int, start: int = 0) -> list[Answer]:
    return [
        Answer(sample_id=f"s{index}", cluster="c", text="line\nbreak \u2028 é", tokens=index, finished=True)
        for index in range(start, start + count)
    ]


def rows_of(path: Path, *, torn: bool = False) -> list[Answer]:
    return list(read_rows(path, Answer, allow_torn_tail=torn))


def assert_round_trip(rows: Sequence[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written, appended = Path(folder, "written.jsonl"), Path(folder, "appended.jsonl")
        assert write_rows(written, rows) == len(rows)
        assert sum(append_rows(appended, [row]) for row in rows) == len(rows)
        for row_type in {type(row) for row in rows}:
            assert list(read_rows(written, row_type)) == rows
        assert not rows or appended.read_bytes() == written.read_bytes()


@settings(max_examples=40)
@given(st.lists(samples, max_size=4))
def test_samples_come_back_as_they_were(rows: list[Sample]) -> None:
    assert_round_trip(rows)


@settings(max_examples=20)
@given(st.lists(pairs, max_size=4))
def test_pairs_come_back_as_they_were(rows: list[Pair]) -> None:
    assert_round_trip(rows)


@settings(max_examples=40)
@given(st.lists(scores, max_size=4))
def test_scores_come_back_as_they_were(rows: list[Score]) -> None:
    assert_round_trip(rows)


def test_a_kill_at_any_byte_loses_at_most_the_row_being_written(tmp_path: Path) -> None:
    """A file truncated at each byte: complete rows are read, and appending removes the torn one."""
    path = tmp_path / "answers.jsonl"
    append_rows(path, answers(3))
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        # A row that only lacks its newline is whole.
        complete = whole[:cut].count(b"\n") + (cut < len(whole) and whole[cut : cut + 1] == b"\n")
        assert rows_of(path, torn=True) == answers(complete)
        append_rows(path, answers(2, start=complete))
        assert rows_of(path) == answers(complete + 2)


def test_append_finds_the_start_of_a_torn_line_longer_than_one_block(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_rows(path, answers(1))
    with path.open("ab") as file:
        file.write(b'{"sample_id": "' + b"x" * 200_000)
    append_rows(path, answers(1, start=1))
    assert rows_of(path) == answers(2)


def test_append_mends_a_file_that_is_one_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\0" * 70_000)  # what some file systems leave after a power failure
    append_rows(path, answers(1))
    assert rows_of(path) == answers(1)


def test_torn_tail_is_an_error_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_rows(path, answers(2))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"answers\.jsonl line 2: the row is truncated; run the command .* again"):
        rows_of(path)


def test_torn_line_in_the_middle_is_an_error_always(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_rows(path, answers(1))
    path.write_bytes(path.read_bytes()[:-5] + b"\n" + path.read_bytes())
    with pytest.raises(InputError, match=r"line 1: not JSON"):
        rows_of(path, torn=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello", r"line 2: not JSON, 'hello'; correct the line or delete it"),
        (b"[1]", r"line 2: input should be an object; correct the row or delete it"),
        (b'{"sample_id": "a"}', r"line 2: key 'cluster' is missing \(and 1 more\)"),
        (
            b'{"sample_id":"a","cluster":"","text":"","tokens":"x","finished":true}',
            r"line 2: tokens = 'x': input should be",
        ),
        (
            b'{"sampel_id":"a","cluster":"","text":"","tokens":1,"finished":true}',
            r"unknown key 'sampel_id'; did you mean 'sample_id'",
        ),
        (b"\xff\xfe", r"line 2: byte \d+ is 0xFF, which is not UTF-8 .*iconv -f WINDOWS-1252"),
        (b'{"sample_id":"\\ud800","cluster":"","text":"","tokens":1,"finished":true}', r"line 2: not JSON"),
        (b"[" * 100_000, r"line 2: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    append_rows(path, answers(1))
    with path.open("ab") as file:
        file.write(line + b"\n")
    rows = read_rows(path, Answer)
    assert next(rows) == answers(1)[0]
    with pytest.raises(InputError, match=message) as caught:
        next(rows)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_files_from_elsewhere_are_read(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, blank lines, and no newline at the end."""
    path = tmp_path / "answers.jsonl"
    first, second = (row.model_dump_json().encode() for row in answers(2))
    path.write_bytes(b"\xef\xbb\xbf" + first + b"\r\n\r\n  \n" + second)
    assert list(numbered_rows(path, Answer)) == list(zip((1, 4), answers(2), strict=True))
    append_rows(path, answers(1, start=2))
    assert rows_of(path) == answers(3)


def test_missing_file_fails_at_the_call_and_not_at_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl does not exist"):
        read_rows(tmp_path / "nowhere.jsonl", Answer)
    with pytest.raises(InputError, match="is a directory"):
        read_rows(tmp_path, Answer)


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.records.store.MAX_LINE", 1000)
    path = tmp_path / "noise"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="line 1: longer than 1000 bytes"):
        rows_of(path, torn=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[Answer]:
        yield from answers(2)
        raise RuntimeError("the source broke")

    path = tmp_path / "answers.jsonl"
    write_rows(path, answers(1))
    with pytest.raises(RuntimeError):
        write_rows(path, broken())
    assert rows_of(path) == answers(1)
    assert os.listdir(tmp_path) == ["answers.jsonl"]  # noqa: PTH208


def test_rows_may_be_rewritten_from_their_own_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_rows(path, answers(5))
    write_rows(path, (row for row in read_rows(path, Answer) if (row.tokens or 0) % 2))
    assert [row.tokens for row in rows_of(path)] == [1, 3]


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    (tmp_path / ".answers.jsonl.tmp").write_bytes(b"half")
    write_rows(path, answers(1))
    assert rows_of(path) == answers(1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["answers.jsonl"]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """10,000 rows of 1 KB are written and read in less than a tenth of the memory that they fill on disk."""
    path = tmp_path / "answers.jsonl"
    row = answers(1)[0].model_copy(update={"text": "x" * 1000})
    tracemalloc.start()
    assert write_rows(path, (row for _ in range(10_000))) == 10_000
    assert sum(1 for _ in read_rows(path, Answer)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 1_000_000


def test_rows_are_sorted_without_holding_them(tmp_path: Path) -> None:
    """Sorted by key, ties in file order, rows without a key omitted; memory is a tenth of the file's size."""
    path = tmp_path / "answers.jsonl"
    long = {"text": "x" * 1000}
    ids = (f"s{number * 7919 % 5000}" for number in range(5000))
    write_rows(path, (a.model_copy(update={**long, "sample_id": next(ids)}) for a in answers(5000)))
    with path.open("ab") as file:
        file.write(b'{"sample_id": "torn')
    tracemalloc.start()
    seen = [
        (row.sample_id, row.tokens)
        for row in sorted_rows(
            path, Answer, lambda a: a.sample_id if (a.tokens or 0) % 2 else None, allow_torn_tail=True
        )
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == sorted((f"s{n * 7919 % 5000}", n) for n in range(1, 5000, 2))
    assert peak < 1_500_000 < path.stat().st_size / 3
    write_rows(path, [answers(1)[0].model_copy(update={"tokens": n}) for n in (3, 1, 2)])
    assert [row.tokens for row in sorted_rows(path, Answer, lambda a: a.sample_id)] == [3, 1, 2]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row.tokens for row in sorted_rows(path, Answer, lambda a: str(a.tokens))] == [1, 2, 3]


def test_json_of_models_and_paths(tmp_path: Path) -> None:
    estimate = Estimate(value=0.5, stderr=0.1, ci95=(0.3, 0.7), n=10)
    path = tmp_path / "deep" / "estimates.json"
    write_json(path, {"f1": estimate, "where": Path("a/b"), "é": None})
    assert read_json(path) == {
        "f1": {"value": 0.5, "stderr": 0.1, "ci95": [0.3, 0.7], "n": 10, "unscored": 0},
        "where": "a/b",
        "é": None,
    }
    assert Estimate.model_validate(read_json(path)["f1"]) == estimate
    assert path.read_text(encoding="utf-8").endswith("}\n")


def test_numbers_that_json_cannot_say_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    with pytest.raises(ValueError, match="finite number"):
        Estimate(value=float("inf"), stderr=None, ci95=None, n=0)
    assert list(tmp_path.iterdir()) == []


def test_bad_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_replacing_shows_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("1", encoding="utf-8")
    with atomic_write(path) as temporary:
        temporary.write_text("2", encoding="utf-8")
        assert json.loads(path.read_text(encoding="utf-8")) == 1
    assert json.loads(path.read_text(encoding="utf-8")) == 2


def test_text_stats_of_a_logged_request_keep_their_keys_in_files(tmp_path: Path) -> None:
    row = LoggedRequest(id="0", time="", model="m", prompt_stats=TextStats(words=2), answer_stats=TextStats(words=1))
    write_rows(tmp_path / "log.jsonl", [row])
    stored = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8"))
    assert (stored["asked"]["words"], stored["said"]["words"], "prompt_stats" in stored) == (2, 1, False)
    assert list(read_rows(tmp_path / "log.jsonl", LoggedRequest)) == [row]
