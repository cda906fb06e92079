"""Files on the real pages of `chat` and `label`: only what a browser has sent is read, once, and nothing stays.

Needs Gradio; else skipped. No browser: requests are those of Gradio's client.
"""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from sightline.apps.guard import UploadRejected, Uploads
from sightline.errors import InputError
from sightline.lab import BASE
from sightline.records import Pair, write_rows
from tests.apps.serving import serving

pytest.importorskip("gradio")

FILE = {"meta": {"_type": "gradio.FileData"}}


@dataclass
class Pages:
    """Clients of a chat page, of what is behind its guard, and of a label page; `scratch` is where uploads lie."""

    chat: httpx2.Client
    bare: httpx2.Client
    label: httpx2.Client
    scratch: Path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Three pages in a process of their own."""
    folder = tmp_path_factory.mktemp("pages")
    command = [sys.executable, "-m", "tests.apps.pages_server", str(folder)]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        clients = [
            stack.enter_context(
                httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=False)
            )
            for port in ports
        ]
        yield Pages(clients[0], clients[1], clients[2], folder / "work")


def png(color: tuple[int, int, int] = (7, 77, 177)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (33, 17), color).save(buffer, "PNG")
    return buffer.getvalue()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def call(client: httpx2.Client, function: str, data: list[Any], session: str) -> tuple[int, Any]:
    """The status of a queued call, and how it ended."""
    names = [(one["id"], one["targets"][0][1]) for one in client.get("/config").json()["dependencies"]]
    number = next(number for number, name in names if name == function)
    body = {"fn_index": number, "data": data, "session_hash": session}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.status_code, joined.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            event = json.loads(line[5:]) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                return 200, event["output"]
    raise AssertionError("the call never ended")


def send(client: httpx2.Client, *contents: bytes) -> httpx2.Response:
    """Files as a browser sends them."""
    files = [("files", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    return client.post("/gradio_api/upload", files=files)


def test_a_file_that_was_not_sent_is_neither_read_nor_copied(pages: Pages, tmp_path: Path) -> None:
    victim, beside = tmp_path / "victim.png", pages.scratch.parent / "images" / "kept.png"
    victim.write_bytes(png())
    beside.parent.mkdir(exist_ok=True)
    beside.write_bytes(png())
    paths = (str(victim), "/etc/passwd", f"{pages.scratch}/../images/kept.png", "http://127.0.0.1:1/x.png")
    for number, path in enumerate(paths):
        status, reply = call(pages.chat, "upload", [{**FILE, "path": path}, None], f"s{number}")
        assert (status, reply) == (403, "A call may not name a file that was not uploaded to this page.")
    assert victim.exists() and files_in(pages.scratch) == []


def test_gradio_refuses_it_too(pages: Pages, tmp_path: Path) -> None:
    """Without the guard's own check: the page behind it counts as launched, so Gradio looks where a file lies."""
    victim = tmp_path / "victim.png"
    victim.write_bytes(png())
    for number, path in enumerate((str(victim), "/etc/passwd")):
        status, reply = call(pages.bare, "upload", [{**FILE, "path": path}, None], f"g{number}")
        assert status == 200 and "data" not in reply
    assert files_in(pages.scratch) == []


def test_a_picture_that_was_sent_is_taken_once_and_removed(pages: Pages) -> None:
    sent = send(pages.chat, png())
    (path,) = sent.json()
    assert sent.status_code == 200 and files_in(pages.scratch) != []
    status, reply = call(pages.chat, "upload", [{**FILE, "path": path}, None], "t1")
    assert status == 200 and "data:image/png;base64," in reply["data"][1]
    assert files_in(pages.scratch) == []
    assert call(pages.chat, "upload", [{**FILE, "path": path}, None], "t2")[0] == 403
    status, reply = call(pages.chat, "submit", ["What is there?", None], "t1")
    assert status == 200 and reply["data"][0] == ""


def test_uploads_are_limited_in_number_and_in_all(pages: Pages) -> None:
    """The page takes 3 files and 60,000 bytes, in requests of at most 50,000."""
    assert send(pages.chat, png(), png((1, 2, 3))).status_code == 413
    assert send(pages.chat, b"x" * 60_000).status_code == 413
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    parts = (part for part in (head, *[b"x" * 10_000] * 6))  # a body whose length is not told
    assert pages.chat.post("/gradio_api/upload", content=parts, headers=headers).status_code == 413
    assert files_in(pages.scratch) == []
    assert send(pages.chat, b"x" * 40_000).status_code == 200
    full = send(pages.chat, b"y" * 40_000)
    assert full.status_code == 429 and "all the space" in full.text
    assert [send(pages.chat, png((number, 0, 0))).status_code for number in range(4)] == [200, 200, 429, 429]
    assert len(files_in(pages.scratch)) == 3


def test_what_nobody_names_is_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, max_total=1000, seconds=0.05)
    with uploads.admit(100):
        for name in ("named", "not-named"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.png").write_bytes(png())
        uploads.add([str(tmp_path / "named" / "a.png")])
    assert files_in(tmp_path) == [tmp_path / "named" / "a.png"] and not (tmp_path / "not-named").exists()
    assert uploads.knows(str(tmp_path / "not-named" / ".." / "named" / "a.png"))
    time.sleep(0.06)
    with uploads.admit(100):
        assert files_in(tmp_path) == []
    with pytest.raises(InputError, match="not uploaded to this page, or its upload expired"):
        uploads.take(str(tmp_path / "named" / "a.png"), 1000)


def test_a_link_out_of_the_folder_is_no_upload(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "victim.png").write_bytes(png())
    uploads = Uploads(tmp_path / "work", max_total=1000)
    with uploads.admit(10):
        (tmp_path / "work" / "link.png").symlink_to(tmp_path / "victim.png")
        with pytest.raises(UploadRejected):
            uploads.add([str(tmp_path / "work" / "link.png")])
    assert (tmp_path / "victim.png").read_bytes() == png()


def test_a_page_that_needs_no_files_takes_none(pages: Pages) -> None:
    refused = send(pages.label, png())
    assert (refused.status_code, refused.text) == (403, "This page accepts no files.")
    parts = pages.label.get("/config").json()["components"]
    number = next(part["id"] for part in parts if part["props"].get("elem_id") == "label")
    body: dict[str, Any] = {"session_hash": "l", "component_id": number, "fn_name": "enter", "data": {"rater": "me"}}
    assert pages.label.post("/gradio_api/component_server/", json=body).json()["item"]["id"] == "i"
    body["data"] = {"rater": "me", "path": "/etc/passwd"}
    assert pages.label.post("/gradio_api/component_server/", json=body).status_code == 403
    for path in ("/docs", "/openapi.json", "/gradio_api/openapi.json"):
        assert pages.label.get(path).status_code == 404
    assert pages.label.get("/", headers={"host": "[::1"}).status_code == 400


@pytest.mark.slow
def test_the_command_keeps_its_files_to_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "talk"
    with (
        serving("chat", str(BASE), "--out", str(folder), "--port", "0") as process,
        httpx2.Client(base_url=process.address, timeout=60, trust_env=False, verify=False) as client,
    ):
        assert call(client, "upload", [{**FILE, "path": "/etc/passwd"}, None], "c1")[0] == 403
        (path,) = send(client, png()).json()
        reply = call(client, "upload", [{**FILE, "path": path}, None], "c2")[1]
        assert "data:image/png" in reply["data"][1] and files_in(folder / "work") == []
        modes = {place.relative_to(folder).as_posix(): place.stat().st_mode & 0o777 for place in folder.rglob("*")}
    assert folder.stat().st_mode & 0o777 == 0o700 and modes["images"] == 0o700 and modes["manifest.json"] == 0o600
    assert [mode for name, mode in modes.items() if name.startswith("images/")] == [0o600]


@pytest.mark.slow
def test_labels_are_their_owners(tmp_path: Path) -> None:
    pair = Pair(id="p", images=("one.png",), prompt="?", chosen="A car.", rejected="A dog.", builder="x")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "one.png").write_bytes(png())
    write_rows(tmp_path / "pairs" / "pairs.jsonl", [pair])
    shared = (tmp_path / "pairs" / "one.png").stat().st_mode & 0o777
    folder = tmp_path / "labels"
    with (
        serving("label", str(tmp_path / "pairs"), "--out", str(folder), "--port", "0") as process,
        httpx2.Client(base_url=process.address, timeout=60, trust_env=False, verify=False) as client,
    ):
        parts = client.get("/config").json()["components"]
        number = next(part["id"] for part in parts if part["props"].get("elem_id") == "label")

        def ask(function: str, **data: Any) -> Any:
            body = {"session_hash": "l", "component_id": number, "fn_name": function, "data": data}
            return client.post("/gradio_api/component_server/", json=body).json()

        item = ask("enter", rater="me")["item"]["id"]
        assert ask("keep", rater="me", item=item, verdict="left")["done"] == 1
        modes = {place.relative_to(folder).as_posix(): place.stat().st_mode & 0o777 for place in folder.rglob("*")}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (modes["items.jsonl"], modes["raters"], modes["raters/me.jsonl"]) == (0o600, 0o700, 0o600)
    assert (tmp_path / "pairs" / "one.png").stat().st_mode & 0o777 == shared  # a picture may be a hard link
