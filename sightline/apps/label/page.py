"""The page of `sightline label`: a desk behind Gradio. What is shown is `page.js`, every text of it as text.

The browser asks four functions and gets plain JSON; a sentence under `error` is for the rater's eyes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sightline.apps.guard import BindAddress
from sightline.apps.label.items import ItemSource, open_labels
from sightline.apps.label.session import LabelConfig, LabelingSession, form_of
from sightline.apps.web import gradio_quietly, guarded, open_door, page_file, serve
from sightline.errors import InputError
from sightline.records.store import private_umask
from sightline.report.gallery import data_uri

#: Longest side and bytes of a picture on the page; larger ones are shrunk for the screen, not on disk.
MAX_SIDE, MAX_BYTES = 1600, 2_000_000


def run_label(
    source: ItemSource, out: Path, config: LabelConfig, seed: int, door: BindAddress, tell: Callable[[str], None]
) -> None:
    """Serve the page over a labels directory until Ctrl-C.

    Raises:
        InputError: what `open_labels` and `open_door` refuse, or Gradio is not installed.
    """
    scratch = out / "work"
    gradio = gradio_quietly(scratch)
    with open_door(door) as listening, private_umask():
        opened = open_labels(source, out, config, seed)
        desk = LabelingSession(out, tuple(opened.items.values()), config, seed, _shown)
        left_out = f", left out {opened.dropped}" if opened.dropped else ""
        tell(f"labels: {out} ({len(desk.items)} items{left_out})")
        app = guarded(gradio, page(gradio, desk), door, css=page_file("label/page.css"), title="label")
        serve(app, door, listening, name="label", scratch=scratch, tell=tell)


def page(gradio: Any, desk: LabelingSession) -> Any:
    """The Gradio blocks of a desk."""
    with gradio.Blocks(analytics_enabled=False, title="Sightline: label", fill_width=True) as blocks:
        gradio.HTML(
            html_template='<div class="desk"></div>',
            js_on_load=page_file("label/page.js"),
            server_functions=answers_of(desk),
            apply_default_css=False,
            elem_id="label",
        )
    return blocks


def answers_of(desk: LabelingSession) -> list[Callable[[Any], dict[str, Any]]]:
    """What the browser may ask; each takes one JSON object, and a mistake is answered by a sentence."""

    def enter(asked: Any) -> dict[str, Any]:
        return _answered(lambda: desk.enter(str(asked["rater"])))

    def turn_to(asked: Any) -> dict[str, Any]:
        return _answered(lambda: desk.turn_to(str(asked["rater"]), int(asked["place"])))

    def next_open(asked: Any) -> dict[str, Any]:
        return _answered(lambda: desk.next_open(str(asked["rater"]), int(asked["place"])))

    def keep(asked: Any) -> dict[str, Any]:
        return _answered(lambda: desk.keep(form_of(asked)))

    return [enter, turn_to, next_open, keep]


def _answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except InputError as error:
        return {"error": " ".join(str(error).split())}
    except OSError as error:
        return {"error": f"Nothing was saved: {error.strerror or error}. Make room on the disk, then try again."}
    except (KeyError, TypeError, ValueError, OverflowError):
        return {"error": "The page asked for something unknown; reload it."}


def _shown(path: Path) -> str | None:
    return data_uri(path, side=MAX_SIDE, size=MAX_BYTES)
