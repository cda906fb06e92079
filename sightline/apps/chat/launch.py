"""The launch of `sightline chat`: open the models and the output directory, then serve the page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from sightline.apps.chat.config import ChatConfig
from sightline.apps.chat.page import page
from sightline.apps.chat.session import ChatSession, NamedModel
from sightline.apps.guard import BindAddress, Uploads
from sightline.apps.web import guard_page, import_gradio, open_socket, page_file, serve
from sightline.config import Config
from sightline.models.opening import open_model
from sightline.models.spec import ModelSpec, is_hub_id
from sightline.records import Stage
from sightline.records.store import private_umask

#: Total size of pending uploads, in pictures of the largest size.
UPLOADS = 4


@dataclass(frozen=True)
class ChatModel:
    """A model and the name above its answers."""

    spec: ModelSpec

    @property
    def name(self) -> str:
        """The name shown above its answers."""
        model, adapter = Path(self.spec.name).name, self.spec.adapter
        return model if adapter is None else f"{model} + {_adapter_name(adapter)}"


class _LaunchRequest(Config):
    """The settings that identify a chat's directory."""

    models: tuple[str, ...] = Field(description="the models, as given on the command line")
    chat: ChatConfig = Field(description="the settings of the chat")


def run_chat(
    models: tuple[ChatModel, ...],
    out: Path,
    config: ChatConfig,
    *,
    rater: str,
    seed: int,
    address: BindAddress,
    log: Callable[[str], None],
) -> None:
    """Serve a chat with one model or two until Ctrl-C; preferences are saved in `out`.

    Raises:
        InputError: a model, the directory or the port cannot be opened, or Gradio is not installed.
    """
    scratch = out / "work"
    gradio = import_gradio(scratch)
    with open_socket(address) as listening, private_umask():
        named = tuple(
            NamedModel(name, open_model(model.spec)) for model, name in zip(models, model_names(models), strict=True)
        )
        paths = tuple(_identity(model.spec) for model in models)
        Stage.open(
            out, "chat", _LaunchRequest(models=paths, chat=config), {}, seed
        )  # stays open while the page is served
        session = ChatSession.begin(out, named, config, rater, seed)
        if session.rater.torn:
            log(f"moved a truncated line to {session.rater.torn}")
        uploads = Uploads(scratch, max_total=UPLOADS * address.max_bytes)
        blocks = page(gradio, session, uploads)
        app = guard_page(gradio, blocks, address, css=page_file("chat/page.css"), title="chat", uploads=uploads)
        log(f"preferences: {out}")
        serve(app, address, listening, name="chat", scratch=scratch, log=log)


def _identity(spec: ModelSpec) -> str:
    """The model, its adapter and the settings that change its numbers, as one text."""
    name = spec.name if is_hub_id(spec.name) else str(spec.place.absolute())
    settings = [f"{key}={value}" for key, value in spec.identity().items()]
    return " ".join([name, *([] if spec.adapter is None else [str(spec.adapter.absolute())]), *settings])


def model_names(models: tuple[ChatModel, ...]) -> list[str]:
    """Distinct names for the models; a model compared with itself gets a number."""
    names = [model.name for model in models]
    return names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, 1)]


def _adapter_name(adapter: Path) -> str:
    """The adapter's directory name; for the usual `adapter`, the name of the training directory around it."""
    place = adapter.absolute()
    return place.parent.name if place.name == "adapter" else place.name
