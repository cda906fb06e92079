"""Invalid rows are one-sentence errors with file and row, or are dropped and counted; layouts are detected."""

import base64
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.formats import raw
from sightline.data.formats.raw import data_files, read_raw
from sightline.data.formats.registry import LAYOUTS, detect_layout, get_layout
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.records import read_manifest
from tests.data.formats.conftest import BAD, GOOD, Folder, example, gpt, human

ROW: dict[str, Any] = {"image": "a.png", "question": "What?", "chosen": GOOD, "rejected": BAD}


@pytest.mark.parametrize(
    ("change", "problem", "reason"),
    [
        ({"image": "no.png"}, "image .*no.png does not exist", "image missing, remote or damaged"),
        ({"image": "../a.png"}, "does not stay in", "image missing, remote or damaged"),
        ({"image": "https://x.org/a.png"}, "is a URL and not a path", "image missing, remote or damaged"),
        ({"image": "data:image/png;base64,AA"}, "is a data URI of an unsupported", "image missing, remote or damaged"),
        ({"image": "data:image/png,AA"}, "is a data URI without base64", "image missing, remote or damaged"),
        ({"image": "data:image/png;base64,iVBORw0K*"}, "is damaged or truncated", "image missing, remote or damaged"),
        ({"image": ""}, "neither bytes nor a path", "image missing, remote or damaged"),
        ({"image": ["a.png", 3]}, "image 3 is neither", "image missing, remote or damaged"),
        ({"question": 5}, "question = 5 is not a text", "malformed"),
        ({"chosen": None}, "chosen = None is not a text", "malformed"),
        ({"question": " "}, "the prompt in turn 1 is empty", "malformed"),
        ({"question": "<image><image> What?"}, "has 2 <image> placeholders and the row has 1 images", "malformed"),
        (
            {"image": None, "question": "<image> What?"},
            "has 1 <image> placeholders and the row has 0 images",
            "malformed",
        ),
        ({"rejected": "\ud800"}, "not valid Unicode", "malformed"),
    ],
)
def test_a_bad_row_is_an_error_or_is_counted(folder: Folder, change: dict[str, Any], problem: str, reason: str) -> None:
    place = folder.put("mmpr.jsonl", [ROW, {**ROW, **change}, ROW])
    with pytest.raises(InputError, match=rf"mmpr\.jsonl row 2: .*{problem}"):
        folder.read(place, "mmpr")
    assert not (folder.path.parent / "out-0").exists()
    manifest, out = folder.read(place, "mmpr", skip_bad=True)
    assert manifest.dropped == {reason: 1} and manifest.counts == {"rows": 3, "pairs": 2}
    assert [pair.id for pair in read_pairs(out)] == ["mmpr-00000001", "mmpr-00000003"]


def test_a_damaged_image_is_an_error_or_is_counted(folder: Folder) -> None:
    (folder.path / "bad.png").write_bytes(folder.data("a.png")[:50])
    place = folder.put("mmpr.jsonl", [ROW, {**ROW, "image": "bad.png"}])
    with pytest.raises(InputError, match=r"row 2: image .*bad\.png is truncated or damaged"):
        folder.read(place)
    manifest, out = folder.read(place, skip_bad=True)
    assert manifest.dropped == {"image missing, remote or damaged": 1} and len(list((out / "images").iterdir())) == 1
    embedded = {**ROW, "image": {"bytes": b"\x89PNG not", "path": None}}
    place = folder.put("rlaif.parquet", [{**ROW, "image": {"bytes": folder.data("a.png"), "path": None}}, embedded])
    with pytest.raises(InputError, match=r"rlaif\.parquet row 2: in the row is not an image"):
        folder.read(place)
    assert folder.read(place, skip_bad=True)[0].counts == {"rows": 2, "pairs": 1}


def test_after_a_damaged_image_the_same_out_serves(folder: Folder) -> None:
    """The rows are what they were, so it is the same run, with `skip_bad` or with the image mended."""
    from sightline.data.formats.importing import ImportRequest, import_layout

    (folder.path / "bad.png").write_bytes(b"")
    place, out = folder.put("mmpr.jsonl", [ROW, {**ROW, "image": "bad.png"}]), folder.path.parent / "same"
    (folder.path / "bad.png").write_bytes(folder.data("a.png")[:50])
    with pytest.raises(InputError, match="damaged"):
        import_layout(ImportRequest(place), out)
    assert import_layout(ImportRequest(place, skip_bad=True), out).counts["pairs"] == 1
    calls: list[tuple[int, int]] = []
    assert (
        import_layout(ImportRequest(place), out, lambda done, total: calls.append((done, total))).complete
        and calls == []
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": GOOD + "\n"}, "rejected equals chosen"),
        ({"rejected": " "}, "empty rejected answer"),
        ({"chosen": ""}, "empty chosen answer"),
    ],
)
def test_rows_that_teach_nothing_are_dropped_unasked(folder: Folder, change: dict[str, str], reason: str) -> None:
    manifest, _ = folder.read(folder.put("mmpr.jsonl", [ROW, {**ROW, **change}]))
    assert manifest.dropped == {reason: 1} and manifest.counts == {"rows": 2, "pairs": 1}


@pytest.mark.parametrize(
    ("layout", "change", "problem"),
    [
        ("povid", {"rejected_conversations": [human("Else?"), gpt(BAD)]}, "the user's turn 1 differs"),
        ("povid", {"rejected_conversations": [human("Hi")]}, "have different turns"),
        ("povid", {"conversations": "Hi"}, "conversations = 'Hi' is not a list of turns"),
        ("povid", {"conversations": [{"from": "robot", "value": "Hi"}]}, "role 'robot' is none of"),
        ("povid", {"conversations": [gpt(GOOD)], "rejected_conversations": [gpt(BAD)]}, "does not follow a user turn"),
        ("rlhf-v", {"text": "[1]"}, "is not a JSON object"),
        ("rlhf-v", {"text": "{oops"}, "is not JSON"),
        ("rlhf-v", {"text": '{"question": "What?", "chosen": "A"}'}, "column 'rejected' is missing"),
        ("vlfeedback", {"completions": 4}, "completions = 4 is not a list of answers"),
        ("llava-rlhf", {"preference": 3}, "preference = 3 is neither 1 nor 2"),
        ("llava-instruct", {"conversations": [human("Hi")]}, "has no answer"),
        ("llama-factory", {"chosen": human("Hi")}, "not both assistant turns"),
        ("llama-factory", {"videos": ["x.mp4"]}, "the row has videos"),
        ("ms-swift", {"messages": [{"role": "tool", "content": "4"}]}, "role 'tool' is none of"),
        ("ms-swift", {"rejected_response": 4}, "rejected_response = 4 is not an answer"),
        ("trl", {"prompt": [{"role": "user", "content": [{"type": "video", "text": "x"}]}]}, "neither text nor image"),
    ],
)
def test_what_breaks_a_layout(folder: Folder, layout: str, change: dict[str, Any], problem: str) -> None:
    name, rows = example(layout, folder)
    broken = dict(rows[1]) | change
    place = folder.put(f"x{Path(name).suffix}" if name.endswith("parquet") else name, [broken])
    with pytest.raises(InputError, match=rf"row 1: .*{problem}.*--skip-bad"):
        folder.read(place, layout)


def test_lines_that_are_no_json_are_skipped_on_demand(folder: Folder) -> None:
    place = folder.path / "mmpr.jsonl"
    lines = [json.dumps(ROW).encode(), b"{oops", b"", b"[1]", b'{"a": "cut', json.dumps(ROW).encode()]
    place.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    with pytest.raises(InputError, match=r"mmpr\.jsonl row 2: not JSON, '\{oops'"):
        folder.read(place)
    manifest, out = folder.read(place, skip_bad=True)
    assert manifest.dropped == {"malformed": 3} and manifest.counts == {"rows": 5, "pairs": 2}
    assert [pair.provenance["row"] for pair in read_pairs(out)] == [1, 6]


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("encoding", "sentence"),
    [
        ("utf-16", "is UTF-16 (byte order mark FF FE at byte 0)"),
        ("utf-16-be", "seems to be UTF-16BE"),
        ("latin-1", "is 0xE9, which is not UTF-8 (Latin-1 or Windows-1252?); convert it with `iconv -f WINDOWS-1252"),
    ],
)
def test_a_file_in_another_encoding_loses_no_row(
    folder: Folder, encoding: str, sentence: str, suffix: str, skip_bad: bool
) -> None:
    rows = [json.dumps({**ROW, "question": question}, ensure_ascii=False) for question in ("What?", "Café?", "Why?")]
    place = folder.path / f"rows.{suffix}"
    place.write_bytes(("\n".join(rows) if suffix == "jsonl" else f"[{','.join(rows)}]").encode(encoding))
    with pytest.raises(InputError) as caught:
        folder.read(place, "mmpr", skip_bad=skip_bad)
    assert sentence in str(caught.value) and not (folder.path.parent / "out-0").exists()
    if encoding == "latin-1":
        at = place.read_bytes().index(b"\xe9")
        assert f"byte {at} is 0xE9" in str(caught.value)


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_compressed_file_is_called_so(folder: Folder, suffix: str) -> None:
    place = folder.path / f"rows.{suffix}"
    place.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    with pytest.raises(InputError, match=rf"rows\.{suffix} is gzip and not text; unpack it with `gunzip -c rows"):
        folder.read(place, skip_bad=True)


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("entry", "sentence"),
    [('"question": "Who?", ', "key 'question' occurs twice in one object"), ('"idx": 1e999, ', "'1e999' is too large")],
)
def test_a_row_that_says_a_thing_twice_or_beyond_numbers_is_bad(
    folder: Folder, entry: str, sentence: str, suffix: str
) -> None:
    good = json.dumps(ROW)
    rows = [good, good.replace("{", "{" + entry, 1), good]
    place = folder.path / f"rows.{suffix}"
    place.write_text("\n".join(rows) if suffix == "jsonl" else f"[{','.join(rows)}]")
    with pytest.raises(InputError, match=f"row 2: .*{sentence}"):
        folder.read(place, "mmpr")
    manifest, out = folder.read(place, "mmpr", skip_bad=True)
    assert manifest.dropped == {"malformed": 1} and len(list(read_pairs(out))) == 2


def test_an_object_over_several_lines_is_explained(folder: Folder) -> None:
    place = folder.path / "rows.json"
    place.write_text("\n".join([json.dumps(ROW, indent=1)] * 2))
    with pytest.raises(
        InputError, match=r"row 1: not JSON, '\{' \(an object over several lines; write one object per line"
    ):
        folder.read(place, "mmpr")


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "spelled",
    [
        lambda data: f"data:image/png;base64,{as_base64(data)}",
        lambda data: f"data:;base64,{as_base64(data).rstrip('=')}",
        as_base64,
        lambda data: base64.encodebytes(data).decode(),
    ],
)
def test_a_picture_in_base64_is_read(folder: Folder, spelled: Callable[[bytes], str]) -> None:
    (pair,) = folder.pairs(folder.put("rows.jsonl", [{**ROW, "image": spelled(folder.data("a.png"))}]), "mmpr")
    (image,) = pair.images
    assert image.endswith(".png") and (folder.path.parent / "out-0" / image).read_bytes() == folder.data("a.png")


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"])
def test_every_kind_is_known_by_its_base64(folder: Folder, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), "teal").save(buffer, kind)
    place = folder.put("rows.jsonl", [{**ROW, "image": as_base64(buffer.getvalue())}])
    assert len(folder.pairs(place, "mmpr")[0].images) == 1


def test_paths_are_not_taken_for_base64(folder: Folder) -> None:
    name = "9j/" + "/".join(["abcdefgh"] * 12)  # only characters of base64
    (folder.path / name).parent.mkdir(parents=True)
    (folder.path / name).write_bytes(folder.data("a.png"))
    (pair,) = folder.pairs(folder.put("rows.jsonl", [{**ROW, "image": name}]), "mmpr")
    assert len(pair.images) == 1


@pytest.mark.parametrize(
    "image",
    [
        "A" * 200_000,
        "x/" * 100_000,
        "data:image/png;base64," + "A" * 200_000,
        "data:image/png," + "A" * 200_000,
        as_base64(b"\x89PNG\r\n\x1a\n" + b"0" * 200_000) + "!",
        as_base64(b"\x89PNG\r\n\x1a\n" + b"0" * 200_000),
        "https://example.org/" + "a" * 200_000,
        ["a" * 200_000, {"path": 7}],
    ],
)
def test_no_error_repeats_a_long_value(folder: Folder, image: object) -> None:
    for columns in ({"image": image}, {"image": image, "id": "i" * 200_000}):
        with pytest.raises(InputError, match="row 1: ") as caught:
            folder.read(folder.put("rows.jsonl", [{**ROW, **columns}]), "mmpr")
        assert len(str(caught.value)) < 500 + 2 * len(str(folder.path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_an_array_is_read_in_pieces(folder: Folder, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(raw, "_CHUNK", chunk)
    rows = [{"text": 'é"]},{[\n' * number, "n": number} for number in range(5)]
    place = folder.path / "rows.json"
    for text in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False), "\ufeff \n" + json.dumps(rows)):
        place.write_text(text, encoding="utf-8")
        assert [row.columns for row in read_raw([place])] == rows
    place.write_text(json.dumps(rows)[:-9], encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.json row 5: not JSON \(.*end of the file"):
        list(read_raw([place]))
    place.write_text("[]")
    assert list(read_raw([place])) == []


def test_a_long_array_takes_no_memory(folder: Folder) -> None:
    import tracemalloc

    place = folder.path / "long.json"
    row = json.dumps({"text": "x" * 1000})
    place.write_text("[" + ",\n".join([row] * 20_000) + "]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_raw([place])) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 12e6 < place.stat().st_size
    finally:
        tracemalloc.stop()


def test_which_files_a_directory_means(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"holds no \.parquet, \.jsonl, \.json files"):
        data_files(folder.path)
    with pytest.raises(InputError, match="nothing does not exist"):
        data_files(folder.path / "nothing")
    folder.put("a.json", [ROW])
    for name in ("manifest.json", "dataset_info.json", ".hidden.json"):
        (folder.path / name).write_text("{}")
    assert [path.name for path in data_files(folder.path)] == ["a.json"]
    for name in ("2.jsonl", "1.jsonl"):
        folder.put(name, [ROW])
    assert [path.name for path in data_files(folder.path)] == ["1.jsonl", "2.jsonl"]
    assert folder.read(folder.path)[0].counts == {"rows": 2, "pairs": 2}
    (folder.path / "data").mkdir()
    (folder.path / "data/x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"x\.parquet cannot be read as Parquet"):
        folder.read(folder.path)


def test_unknown_and_ambiguous_layouts(folder: Folder) -> None:
    def detected(*rows: dict[str, Any]) -> str:
        return detect_layout(read_raw([folder.put("x.jsonl", rows)])).name

    with pytest.raises(InputError, match=r"the columns \(a, b\) are of no one layout .*povid.*name one"):
        detected({"a": 1, "b": 2})
    two = {"conversations": [human("Hi")], "rejected_conversations": [human("Hi")]}
    with pytest.raises(InputError, match="fit the layouts povid and llava-rlhf; name the one"):
        detected(two | {"output_1": gpt("a"), "output_2": gpt("b"), "preference": 1})
    with pytest.raises(InputError, match="there is no row"):
        detected()
    assert detected({**ROW, "image": None}, ROW) == "mmpr"
    with pytest.raises(InputError, match="no layout 'rlaif'; did you mean 'rlaif-v'"):
        get_layout("rlaif")
    for name in LAYOUTS:
        assert detect_layout(read_raw([folder.put(*example(name, folder))])).name == name


def test_nothing_left_and_no_images_folder(folder: Folder) -> None:
    place = folder.put("mmpr.jsonl", [{**ROW, "rejected": GOOD}])
    with pytest.raises(InputError, match=r"of 1 rows none is left \(dropped: \{'rejected equals chosen': 1\}"):
        folder.read(place)
    with pytest.raises(InputError, match=r"images folder .* does not exist"):
        folder.read(place, images=folder.path / "none")


def test_the_command(folder: Folder) -> None:
    place, out = folder.put(*example("povid", folder)), folder.path.parent / "pairs"
    words = ["import", "auto", str(place), "--images", str(folder.path), "--out", str(out), "--prefix", "p"]
    result = CliRunner().invoke(app, [*words, "--set", "ranked=all"])
    assert result.exit_code == 0, result.output
    assert f"import povid: {out} (2 rows, 2 pairs, dropped none)" in result.output
    assert [pair.id for pair in read_pairs(out)] == ["p-00000001", "p-00000002"]
    assert read_manifest(out).config["ranked"] == "all"
    again = CliRunner().invoke(app, [*words[:-2], "--set", "ranked=some"])
    assert again.exit_code == 2 and "ranked = 'some'" in again.stderr
