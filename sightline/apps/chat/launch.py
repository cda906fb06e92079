"""From the command's arguments to a page that is served: the models of `sightline chat` are opened here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sightline.apps.chat.config import ChatConfig
from sightline.apps.chat.page import page
from sightline.apps.chat.session import ChatSession, NamedModel
from sightline.apps.guard import BindAddress, Uploads
from sightline.apps.web import gradio_quietly, guarded, open_door, page_file, serve
from sightline.config import Config
from sightline.models.loading import load_vlm
from sightline.records import Stage
from sightline.records.store import private_umask

#: Largest uploads that may wait together, as a number of the largest picture.
UPLOADS = 4


@dataclass(frozen=True)
class ChatModel:
    """A directory of a model, and of an adapter where it has one."""

    path: Path
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """What its answers go by."""
        return self.path.name if self.adapter is None else f"{self.path.name} + {_adapter_name(self.adapter)}"


class _LaunchRequest(Config):
    """What decides a chat's directory."""

    models: tuple[str, ...]
    chat: ChatConfig


def run_chat(
    models: tuple[ChatModel, ...],
    out: Path,
    config: ChatConfig,
    *,
    rater: str,
    seed: int,
    door: BindAddress,
    tell: Callable[[str], None],
) -> None:
    """Serve a talk with one model or two until Ctrl-C; preferences are kept in `out`.

    Raises:
        InputError: what opening the models, the directory or the port refuses, or Gradio is not installed.
    """
    scratch = out / "work"
    gradio = gradio_quietly(scratch)
    with open_door(door) as listening, private_umask():
        voices = tuple(
            NamedModel(name, load_vlm(model.path, adapter=model.adapter))
            for model, name in zip(models, names_of(models), strict=True)
        )
        told = tuple(" ".join(str(p.absolute()) for p in (model.path, model.adapter) if p) for model in models)
        Stage.open(out, "chat", _LaunchRequest(models=told, chat=config), {}, seed)  # open for as long as people talk
        talk = ChatSession.begin(out, voices, config, rater, seed)
        if talk.rater.torn:
            tell(f"a line that was cut off was moved to {talk.rater.torn}")
        uploads = Uploads(scratch, max_total=UPLOADS * door.max_bytes)
        blocks = page(gradio, talk, uploads)
        app = guarded(gradio, blocks, door, css=page_file("chat/page.css"), title="chat", uploads=uploads)
        tell(f"preferences: {out}")
        serve(app, door, listening, name="chat", scratch=scratch, tell=tell)


def names_of(models: tuple[ChatModel, ...]) -> list[str]:
    """Names that tell models apart, even one beside itself."""
    names = [model.name for model in models]
    return names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, 1)]


def _adapter_name(adapter: Path) -> str:
    """Training directories all call theirs `adapter`; their own name says more."""
    place = adapter.absolute()
    return place.parent.name if place.name == "adapter" else place.name
