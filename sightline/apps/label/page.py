"""The Gradio page of `sightline label`. `page.js` renders it, and inserts all texts as plain text.

The browser calls four functions that return JSON; a message under `error` is shown to the rater.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sightline.apps.guard import BindAddress
from sightline.apps.label.items import ItemSource, open_labels
from sightline.apps.label.session import LabelConfig, LabelingSession, parse_form
from sightline.apps.web import guard_page, import_gradio, open_socket, page_file, picture_uri, serve
from sightline.errors import InputError
from sightline.records.store import private_umask


def run_label(
    source: ItemSource, out: Path, config: LabelConfig, seed: int, address: BindAddress, log: Callable[[str], None]
) -> None:
    """Serve the page over a labels directory until Ctrl-C.

    Raises:
        InputError: as `open_labels` and `open_socket`, or Gradio is not installed.
    """
    scratch = out / "work"
    gradio = import_gradio(scratch)
    with open_socket(address) as listening, private_umask():
        opened = open_labels(source, out, config, seed)
        session = LabelingSession(out, tuple(opened.items.values()), config, seed, picture_uri)
        left_out = f", left out {opened.dropped}" if opened.dropped else ""
        log(f"labels: {out} ({len(session.items)} items{left_out})")
        app = guard_page(gradio, page(gradio, session), address, css=page_file("label/page.css"), title="label")
        serve(app, address, listening, name="label", scratch=scratch, log=log)


def page(gradio: Any, session: LabelingSession) -> Any:
    """Build the Gradio blocks of a labeling session."""
    with gradio.Blocks(analytics_enabled=False, title="Sightline: label", fill_width=True) as blocks:
        gradio.HTML(
            html_template='<div class="desk"></div>',
            js_on_load=page_file("label/page.js"),
            server_functions=page_functions(session),
            apply_default_css=False,
            elem_id="label",
        )
    return blocks


def page_functions(session: LabelingSession) -> list[Callable[[Any], dict[str, Any]]]:
    """The functions the browser may call; each takes one JSON object, and reports bad input under `error`."""

    def enter(request: Any) -> dict[str, Any]:
        return _json_or_error(lambda: session.enter(str(request["rater"])))

    def turn_to(request: Any) -> dict[str, Any]:
        return _json_or_error(lambda: session.turn_to(str(request["rater"]), int(request["place"])))

    def next_open(request: Any) -> dict[str, Any]:
        return _json_or_error(lambda: session.next_open(str(request["rater"]), int(request["place"])))

    def keep(request: Any) -> dict[str, Any]:
        return _json_or_error(lambda: session.keep(parse_form(request)))

    return [enter, turn_to, next_open, keep]


def _json_or_error(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except InputError as error:
        return {"error": " ".join(str(error).split())}
    except OSError as error:
        return {"error": f"Not saved: {error.strerror or error}. Free disk space, then try again."}
    except (KeyError, TypeError, ValueError, OverflowError):
        return {"error": "The page sent an unknown request; reload it."}
