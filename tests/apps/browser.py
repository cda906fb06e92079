"""A real headless Chromium, driven over its own debugging pipe: keys, clicks, screenshots, what it loaded and said.

Chromium reads commands from descriptor 3 and answers on 4, JSON between NUL bytes; no further package is needed.
"""

import base64
import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.chromium import CHROMIUM, HEADLESS

PATIENCE = 240.0  # seconds; a shared machine may stall
_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, " ": 32, "Enter": 13}


@dataclass
class Tab:
    """One page. `errors` is what its console heard of warnings and errors, `requested` the addresses it asked for."""

    to: IO[bytes]
    back: IO[bytes]
    session: str = ""
    number: int = 0
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events on the way are noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        reply = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, code: str) -> None:
        """Until an expression is true, or some element."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({code})"):
            shown = self.run("document.body.innerText") if time.monotonic() > end else ""
            assert time.monotonic() < end, f"{code} never came true; the page says: {shown}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """One key, down and up."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        code = _CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def click(self, selector: str, number: int = 0) -> None:
        """The middle of an element, with a real mouse."""
        found = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        box = self.run(
            f"(() => {{ const e = {found}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", **place)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def upload(self, selector: str, path: Path) -> None:
        """A file into a field for files."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def open(self, address: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=address)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window's size, and the scheme that the system asks for."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """A screenshot."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _read(self) -> dict[str, Any]:
        parts = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            parts += byte
        answer: dict[str, Any] = json.loads(parts)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(
                " ".join(str(value.get("value", value.get("description"))) for value in params["args"])[:500]
            )
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}"[:500])


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A Chromium of its own with one empty page; it has ended when the block has."""
    assert CHROMIUM is not None
    ends = [os.pipe(), os.pipe()]
    inside = [fcntl.fcntl(ends[0][0], fcntl.F_DUPFD, 20), fcntl.fcntl(ends[1][1], fcntl.F_DUPFD, 20)]
    for end in (ends[0][0], ends[1][1]):
        os.close(end)

    def place() -> None:
        os.dup2(inside[0], 3)
        os.dup2(inside[1], 4)

    command = [CHROMIUM, *HEADLESS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, preexec_fn=place, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for end in inside:
        os.close(end)
    with open(ends[0][1], "wb") as to, open(ends[1][0], "rb") as back:  # noqa: PTH123 - descriptors
        try:
            tab = Tab(to, back)
            pages = tab.send("Target.getTargets")["targetInfos"]
            target = next(page["targetId"] for page in pages if page["type"] == "page")
            tab.session = tab.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                tab.send(f"{domain}.enable")
            yield tab
        finally:
            process.kill()
            process.wait(30)
