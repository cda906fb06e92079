"""The pages of `chat` and `label` with small limits, in one process; their ports are written as JSON.

    python -m tests.apps.pages_server FOLDER

The ports are of a chat page, of the same page without its guard, and of a label page.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from sightline.apps.chat.config import ChatConfig
from sightline.apps.chat.page import page as chat_page
from sightline.apps.chat.session import ChatSession, NamedModel
from sightline.apps.guard import BindAddress, Uploads
from sightline.apps.label.page import page as label_page
from sightline.apps.label.session import LabelConfig, LabelingSession
from sightline.apps.web import guard_page, import_gradio
from sightline.lab import BASE
from sightline.models.loading import load_vlm
from sightline.records import LabelItem, RatedAnswer


def port_of(app: Any) -> int:
    """Serve an application in a thread, and say where."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def main(folder: Path) -> None:
    """Serve until killed."""
    gradio = import_gradio(folder / "work")
    config = ChatConfig(max_new_tokens=4, max_bytes=30_000)
    talk = ChatSession.begin(folder, [NamedModel("base", load_vlm(BASE))], config, "me")
    uploads, door = Uploads(folder / "work", max_total=60_000, count=3), BindAddress(max_bytes=50_000)
    chat = guard_page(gradio, chat_page(gradio, talk, uploads), door, css="", title="chat", uploads=uploads)
    answers = RatedAnswer(id="a", text="A car."), RatedAnswer(id="b", text="A dog.")
    item = LabelItem(id="i", sample_id="i", prompt="?", cluster="i", first=answers[0], second=answers[1])
    desk = LabelingSession(folder, (item,), LabelConfig(), 0, lambda path: None)
    label = guard_page(gradio, label_page(gradio, desk), BindAddress(), css="", title="label")
    print(json.dumps([port_of(chat), port_of(chat.app), port_of(label)]), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
