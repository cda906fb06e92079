"""Pictures that are symbolic links: the file behind a link is adopted, never the link."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from sightline.builders.dataset_ops import TakeConfig, average_datasets, merge_datasets, take_rows
from sightline.check.findings import CheckConfig, CheckFinding, Report
from sightline.check.fix import claim_fix, fix_dataset
from sightline.check.run import FINDINGS, CheckPlan, check_into
from sightline.data.formats.exporting import export_pairs
from sightline.data.formats.importing import ImportRequest, import_layout
from sightline.data.images import adopt_image, check_image_file, link_target_outside, open_image
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import read_samples
from sightline.errors import InputError
from sightline.records import read_rows
from sightline.records.hashing import hash_file, hash_tree

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(path: Path, color: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), color).save(path, "PNG")
    return path


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def write_pair(directory: Path, name: str, image: str) -> Path:
    row = {"id": name, "images": [image], "prompt": "?", "chosen": "A.", "rejected": "B.", "builder": "b"}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return directory


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A pair whose red picture is a link within its folder."""
    picture(tmp_path / "linked/orig/1.png", RED)
    link(tmp_path / "linked/pics/1.png", "../orig/1.png")
    return write_pair(tmp_path / "linked", "a", "pics/1.png")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The layout of the hub's cache: a snapshot whose files are relative links to blobs beside it."""
    picture(tmp_path / "cache/blobs/0f3a", RED)
    link(tmp_path / "cache/snapshots/abc/pics/0.png", "../../../blobs/0f3a")
    return write_pair(tmp_path / "cache/snapshots/abc", "a", "pics/0.png")


def assert_red(directory: Path) -> None:
    """All pictures of the first row are red files, and no link is left."""
    pair = next(read_pairs(directory))
    for image in pair.images:
        assert open_image(directory / image, "").getpixel((3, 3)) == RED
    assert not [path for path in directory.rglob("*") if path.is_symlink()]


def looked_at(source: Path, out: Path) -> Report:
    return check_into(CheckPlan(source, CheckConfig(resamples=100)), out, lambda _: lambda done, total: None)


def fixed(source: Path, out: Path) -> None:
    plan = CheckPlan(source, CheckConfig(resamples=100))
    looked_at(source, out.parent / "findings")
    fix_dataset(plan, out.parent / "findings" / FINDINGS, claim_fix(plan, out), lambda done, total: None)


ADOPTING: dict[str, Callable[[Path, Path], object]] = {
    "merge": lambda source, out: merge_datasets([source], out),
    "take": lambda source, out: take_rows(source, TakeConfig(count=1), out),
    "average": lambda source, out: average_datasets(source, source, out),
    "export": lambda source, out: export_pairs("trl", source, out),
    "fix": fixed,
}


@pytest.mark.parametrize("name", ADOPTING)
@pytest.mark.parametrize("layout", ["linked", "hub"])
def test_what_adopts_a_link_gets_the_picture(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str, name: str
) -> None:
    ADOPTING[name](request.getfixturevalue(layout), tmp_path / "out")
    assert_red(tmp_path / "out")


@pytest.mark.parametrize("layout", ["llama-factory", "ms-swift"])
def test_an_export_holds_the_picture(linked: Path, hub: Path, tmp_path: Path, layout: str) -> None:
    for number, source in enumerate((linked, hub)):
        out = tmp_path / f"out-{number}"
        export_pairs(layout, source, out)
        (found,) = out.glob("pics/*")
        assert not found.is_symlink() and open_image(found, "").getpixel((3, 3)) == RED


def test_an_import_from_a_cache_of_the_hub(hub: Path, tmp_path: Path) -> None:
    row = {"image": "pics/0.png", "question": "?", "chosen": "A.", "rejected": "B."}
    (hub / "rows.jsonl").write_text(json.dumps(row) + "\n")
    import_layout(ImportRequest(hub / "rows.jsonl", "mmpr"), tmp_path / "out")
    assert_red(tmp_path / "out")
    chat = {"image": "pics/0.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A."}]}
    (hub / "chat.jsonl").write_text(json.dumps(chat) + "\n")
    import_layout(ImportRequest(hub / "chat.jsonl", "llava-instruct"), tmp_path / "samples")
    (sample,) = read_samples(tmp_path / "samples")
    assert open_image(tmp_path / "samples" / sample.images[0], "").getpixel((3, 3)) == RED


def test_a_merge_never_takes_a_link_for_the_picture_of_another_folder(linked: Path, tmp_path: Path) -> None:
    """The link of the first leads, from the merged folder, to where the second's picture of another color goes."""
    picture(tmp_path / "other/orig/1.png", BLUE)
    merge_datasets([linked, write_pair(tmp_path / "other", "b", "orig/1.png")], tmp_path / "out")
    colors = {
        p.id: open_image(tmp_path / "out" / p.images[0], "").getpixel((3, 3)) for p in read_pairs(tmp_path / "out")
    }
    assert colors == {"a": RED, "b": BLUE}


def test_a_copy_is_of_the_file_too(linked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("another device")))
    adopt_image(linked, "pics/1.png", tmp_path / "out", "row 1")
    assert open_image(tmp_path / "out/pics/1.png", "").getpixel((3, 3)) == RED


def test_a_link_that_an_earlier_version_left_is_replaced(linked: Path, tmp_path: Path) -> None:
    picture(tmp_path / "out/orig/1.png", BLUE)
    link(tmp_path / "out/pics/1.png", "../orig/1.png")
    adopt_image(linked, "pics/1.png", tmp_path / "out", "row 1")
    assert open_image(tmp_path / "out/pics/1.png", "").getpixel((3, 3)) == RED
    assert open_image(tmp_path / "out/orig/1.png", "").getpixel((3, 3)) == BLUE


@pytest.mark.parametrize("layout", ["llama-factory", "ms-swift"])
def test_an_export_refuses_a_damaged_picture(linked: Path, tmp_path: Path, layout: str) -> None:
    data = (linked / "orig/1.png").read_bytes()
    (linked / "orig/1.png").write_bytes(data[:-25])
    with pytest.raises(InputError, match=r"pair 'a': image .*1\.png is truncated or damaged"):
        export_pairs(layout, linked, tmp_path / "out")


def test_links_out_of_the_folder_are_followed_and_told(hub: Path, linked: Path, tmp_path: Path) -> None:
    assert link_target_outside(hub / "pics/0.png", hub) == (tmp_path / "cache/blobs/0f3a").resolve()
    assert link_target_outside(linked / "pics/1.png", linked) is None
    report = looked_at(hub, tmp_path / "check")
    (line,) = [line for line in report.lines if line.check == "image-linked"]
    assert (line.rows, line.verdict, report.removable) == (1, "ok", 0)
    reasons = {found.check: found.reason for found in read_rows(tmp_path / "check" / FINDINGS, CheckFinding)}
    assert "blobs/0f3a, which is outside of the folder" in reasons["image-linked"]
    within = check_into(
        CheckPlan(linked, CheckConfig(resamples=100)), tmp_path / "within", lambda _: lambda done, total: None
    )
    assert [line.rows for line in within.lines if line.check == "image-linked"] == [0]


@contextmanager
def within_seconds(seconds: int) -> Iterator[None]:
    """Opening a FIFO without a writer would block forever."""

    def fail(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def spoil(folder: Path) -> None:
    """Things that hold no data: a FIFO, a socket, a link to a device, a broken link, a loop."""
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    here = Path.cwd()
    os.chdir(folder)  # a socket's path may have a hundred characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    os.chdir(here)


def test_what_holds_no_data_does_not_count_in_a_hash_and_never_hangs(linked: Path) -> None:
    clean = hash_tree(linked)
    spoil(linked / "orig")
    with within_seconds(20):
        assert hash_tree(linked) == clean
        for name, kind in (("pipe", "a FIFO"), ("zero", "a device"), ("socket", "a socket")):
            with pytest.raises(InputError, match=f"is {kind} and not a regular file"):
                hash_file(linked / f"orig/{name}.png")
        for name in ("dangling", "loop"):
            with pytest.raises(InputError, match="cannot be read"):
                hash_file(linked / f"orig/{name}.png")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("pipe", "is a FIFO and not a file"),
        ("zero", "is a device and not a file"),
        ("socket", "is a socket and not a file"),
        ("dangling", "does not exist, it is a broken link"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
    ],
)
def test_a_row_that_names_such_a_file_is_a_finding(linked: Path, tmp_path: Path, name: str, sentence: str) -> None:
    spoil(linked / "orig")
    with within_seconds(60):
        with pytest.raises(InputError) as caught:
            check_image_file(linked / f"orig/{name}.png", "row 7")
        assert sentence in str(caught.value)
        write_pair(linked, "a", f"orig/{name}.png")
        report = check_into(
            CheckPlan(linked, CheckConfig(resamples=100)), tmp_path / "c", lambda _: lambda done, total: None
        )
    assert (report.rows, report.removable) == (1, 1)
    (finding,) = read_rows(tmp_path / "c" / FINDINGS, CheckFinding)
    assert finding.check == "image-path" and sentence in finding.reason
