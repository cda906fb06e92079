"""The Gradio page of `sightline chat`: streamed answers, and the HTML that shows them.

Each browser holds its own `PageState`; the models answer one question at a time, over all browsers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from sightline.apps.chat.session import ChatQuestion, ChatSession, Side
from sightline.apps.guard import Uploads
from sightline.apps.web import page_file, picture_uri
from sightline.errors import InputError
from sightline.models.requests import Generation
from sightline.records import Turn

#: Gradio evaluates HTML values as templates, so these characters are escaped too.
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})


def safe(text: str) -> Markup:
    """Text escaped for HTML and for Gradio's template."""
    return Markup(str(escape(text)).translate(_TEMPLATE))


def answer_html(title: str, text: str, note: str) -> str:
    """One model's answer under its name, with a note below."""
    return str(
        Markup('<article class="said"><h2>{}</h2><p class="text">{}</p><small>{}</small></article>').format(
            safe(title), safe(text), safe(note)
        )
    )


def status_html(text: str, *, bad: bool = False) -> str:
    """The status line."""
    kind = "status bad" if bad else "status"
    return str(Markup('<p class="{}" role="status">{}</p>').format(kind, safe(" ".join(text.split()))))


def history_html(turns: Sequence[Turn], prompt: str) -> str:
    """The conversation so far, and the question being answered."""
    visible = [*turns, *([Turn(role="user", text=prompt)] if prompt else [])]
    rows = (Markup('<p class="turn {}">{}</p>').format(turn.role, safe(turn.text)) for turn in visible)
    return str(Markup("").join(rows))


def picture_html(path: Path | None) -> str:
    """The picture, or a placeholder."""
    uri = None if path is None else picture_uri(path)
    if uri is None:
        return '<p class="empty">No picture yet; questions are asked without one.</p>'
    return str(Markup('<img src="{}" alt="the picture">').format(uri))


LETTERS = ("A", "B")
CHOICES: dict[Side, str] = {"left": "A is better (1)", "right": "B is better (2)", "tie": "tie (t)"}
NOTHING = ChatQuestion("")
Outputs = tuple[Any, ...]


@dataclass(frozen=True)
class PageState:
    """The state of one browser: question, complete answers in the models' order, picture, and the next turn's history.

    `kept` is the status line after a preference was saved.
    """

    question: ChatQuestion = NOTHING
    texts: tuple[str, ...] = ()
    image: str | None = None
    history: tuple[Turn, ...] = ()
    kept: str = ""


@dataclass(frozen=True)
class ChatHandlers:
    """Event handlers of the page. Each returns the new values of the components, in the order of `render`."""

    gradio: Any
    session: ChatSession
    uploads: Uploads | None = None

    @property
    def titles(self) -> list[str]:
        """The headings above the answers."""
        names = [model.name for model in self.session.models]
        if len(names) == 1:
            return names
        blind = self.session.config.blind
        return [letter if blind else f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=True)]

    def place(self, name: str | None) -> Path | None:
        """The path of a picture of this chat."""
        return None if name is None else self.session.folder / name

    def take(self, sent: Any, shown: PageState) -> Outputs:
        """Handle an uploaded picture: state, picture, status. A new picture starts a new chat."""
        try:
            name = self.session.take(self._read_upload(sent), "that was sent")
        except InputError as error:
            return shown, picture_html(self.place(shown.image)), status_html(str(error), bad=True)
        return PageState(image=name), picture_html(self.place(name)), status_html("")

    def _read_upload(self, sent: Any) -> bytes:
        """Read and remove an upload, up to one byte over the limit."""
        if sent is None:
            return b""
        if self.uploads is None:
            raise InputError("this page accepts no pictures")
        return self.uploads.take(sent, self.session.config.max_bytes)

    def ask(self, prompt: str, shown: PageState) -> Iterator[Outputs]:
        """Answer a question: the question field, then `render`, after every token."""
        question = ChatQuestion(prompt.strip(), (shown.image,) if shown.image else (), shown.history)
        shown = replace(shown, question=question, texts=(), kept="")
        generations: tuple[Generation, ...] = ()
        try:
            for generations in self.session.answer(question):
                yield "", *self.render(shown, generations)
        except InputError as error:
            yield prompt, *self.render(replace(shown, question=NOTHING), (), problem=str(error))
            return
        shown = replace(shown, texts=tuple(generation.text.strip() for generation in generations))
        if len(generations) == 1:
            shown = replace(shown, history=_append_turns(question, shown.texts[0]))
        yield "", *self.render(shown, generations)

    def keep(self, side: Side, shown: PageState) -> Outputs:
        """Save a preference; the chat continues from the preferred answer, for a tie from the first model's."""
        generations = tuple(Generation(text, 0, finished=True) for text in shown.texts)
        try:
            rating = self.session.keep(shown.question, shown.texts, side)
        except (InputError, OSError) as error:
            return self.render(shown, generations, problem=f"Not saved: {error}")
        better = shown.texts[rating.verdict == "second"]
        word = "a tie" if side == "tie" else f"{LETTERS[side == 'right']} is better"
        shown = replace(
            shown,
            history=_append_turns(shown.question, better),
            kept=f"Saved: {word}. The chat continues from that answer.",
        )
        return self.render(shown, generations)

    def begin(self) -> Outputs:
        """Start a new chat: picture, then `render`."""
        return picture_html(None), *self.render(PageState(), ())

    def render(self, shown: PageState, generations: tuple[Generation, ...], *, problem: str = "") -> Outputs:
        """State, history, one card per model in screen order, status, and the three choice buttons."""
        count = len(self.session.models)
        texts = [generation.text.strip() for generation in generations] or [""] * count
        done = bool(shown.texts)
        notes = [_note(generation, done=done) for generation in generations] or [""] * count
        if self.session.is_swapped(shown.question):
            texts, notes = texts[::-1], notes[::-1]
        cards = [answer_html(*parts) for parts in zip(self.titles, texts, notes, strict=True)]
        differ = count > 1 and texts[0] != texts[1] and all(texts)
        open_choice = done and differ and not shown.kept
        word = problem or shown.kept
        if done and count > 1 and not word:
            word = "Which is better?" if differ else "No choice to make: the answers are identical, or one is empty."
        prompt = shown.question.prompt
        before = history_html(shown.question.history if prompt else shown.history, prompt)
        choices = [self.gradio.update(interactive=open_choice) for _ in CHOICES]
        return shown, before, *cards, status_html(word, bad=bool(problem)), *choices


def page(gradio: Any, session: ChatSession, uploads: Uploads) -> Any:
    """Build the Gradio blocks of a chat."""
    chat = ChatHandlers(gradio, session, uploads)
    with gradio.Blocks(analytics_enabled=False, title="Sightline: chat", fill_width=True) as blocks:
        state = gradio.State(PageState())
        with gradio.Row(elem_id="chat"):
            with gradio.Column(scale=2, min_width=280):
                shown = _html(gradio, picture_html(None), "picture")
                upload = gradio.UploadButton(
                    "Choose a picture", file_types=["image"], type="filepath", elem_id="upload", size="md"
                )
                fresh = gradio.Button("New chat", elem_id="fresh", size="md")
            with gradio.Column(scale=5, min_width=300):
                before = _html(gradio, "", "past")
                with gradio.Row(elem_id="answers"):
                    cards = [
                        _html(gradio, answer_html(title, "", ""), f"side-{n}") for n, title in enumerate(chat.titles)
                    ]
                line = _html(gradio, status_html(""), "status")
                with gradio.Row(visible=len(cards) > 1, elem_id="choices"):
                    buttons = {
                        side: gradio.Button(label, elem_id=f"choose-{side}", interactive=False)
                        for side, label in CHOICES.items()
                    }
                question = gradio.Textbox(
                    placeholder="Ask about the picture; Enter sends it",
                    show_label=False,
                    lines=1,
                    max_lines=8,
                    max_length=session.config.longest,
                    elem_id="question",
                )
                send = gradio.Button("Ask", variant="primary", elem_id="send")
        gradio.HTML("", js_on_load=page_file("chat/page.js"), elem_id="keys", apply_default_css=False)
        outputs = [state, before, *cards, line, *buttons.values()]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        upload.upload(chat.take, [upload, state], [state, shown, line], **quiet)
        for event in (question.submit, send.click):
            event(
                chat.ask, [question, state], [question, *outputs], concurrency_limit=1, concurrency_id="models", **quiet
            )
        for side, button in buttons.items():
            button.click(_choice_handler(chat, side), [state], outputs, **quiet)
        fresh.click(chat.begin, None, [shown, *outputs], **quiet)
    return blocks


def _html(gradio: Any, value: str, name: str) -> Any:
    return gradio.HTML(value, elem_id=name, apply_default_css=False, js_on_load=None, min_width=240)


def _choice_handler(chat: ChatHandlers, side: Side) -> Callable[[PageState], Outputs]:
    def keep(shown: PageState) -> Outputs:
        return chat.keep(side, shown)

    return keep


def _note(generation: Generation, *, done: bool) -> str:
    """The note below an answer."""
    if generation.finished:
        return ""
    return "cut off by max_new_tokens" if done else "…"


def _append_turns(question: ChatQuestion, answer: str) -> tuple[Turn, ...]:
    return (*question.history, Turn(role="user", text=question.prompt), Turn(role="assistant", text=answer))
