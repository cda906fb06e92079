"""The page of `sightline chat`: a talk behind Gradio, its answers streamed; what it shows is written by `showing`.

The state of a page is the questions so far; models are asked one question at a time, whoever asks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from sightline.apps.chat.session import ChatQuestion, ChatSession, Side
from sightline.apps.guard import Uploads
from sightline.apps.web import page_file
from sightline.errors import InputError
from sightline.models.requests import Generation
from sightline.records import Turn
from sightline.report.gallery import data_uri

#: Gradio reads values of HTML once more as a template, in which these mean something.
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})
#: Longest side and bytes of a picture on the page; larger ones are shrunk for the screen, not on disk.
MAX_SIDE, MAX_BYTES = 1600, 2_000_000


def safe(text: str) -> Markup:
    """Text that stays text in a page and in Gradio's template."""
    return Markup(str(escape(text)).translate(_TEMPLATE))


def card(title: str, text: str, note: str) -> str:
    """One voice's answer under its name."""
    return str(
        Markup('<article class="said"><h2>{}</h2><p class="text">{}</p><small>{}</small></article>').format(
            safe(title), safe(text), safe(note)
        )
    )


def status(text: str, *, bad: bool = False) -> str:
    """The line that says what happened, on one line."""
    kind = "status bad" if bad else "status"
    return str(Markup('<p class="{}" role="status">{}</p>').format(kind, safe(" ".join(text.split()))))


def past(turns: Sequence[Turn], prompt: str) -> str:
    """What was said before, and the question that is being answered."""
    told = [*turns, *([Turn(role="user", text=prompt)] if prompt else [])]
    rows = (Markup('<p class="turn {}">{}</p>').format(turn.role, safe(turn.text)) for turn in told)
    return str(Markup("").join(rows))


def picture(path: Path | None) -> str:
    """A picture, or where it would be."""
    uri = None if path is None else data_uri(path, side=MAX_SIDE, size=MAX_BYTES)
    if uri is None:
        return '<p class="empty">No picture yet: questions go without one.</p>'
    return str(Markup('<img src="{}" alt="the picture">').format(uri))


LETTERS = ("A", "B")
CHOICES: dict[Side, str] = {"left": "A is better (1)", "right": "B is better (2)", "tie": "tie (t)"}
NOTHING = ChatQuestion("")
Outputs = tuple[Any, ...]


@dataclass(frozen=True)
class PageState:
    """What one browser has before it: the question with its picture, the whole answers in the voices' order, and what
    the next question goes on from.
    """

    asked: ChatQuestion = NOTHING
    texts: tuple[str, ...] = ()
    image: str | None = None
    past: tuple[Turn, ...] = ()
    kept: str = ""


@dataclass(frozen=True)
class Chat:
    """What a page does for its buttons; each function gives the values of the page's parts, in `spoken`'s order."""

    gradio: Any
    talk: ChatSession
    uploads: Uploads | None = None

    @property
    def titles(self) -> list[str]:
        """What stands above the answers."""
        names = [voice.name for voice in self.talk.voices]
        if len(names) == 1:
            return names
        blind = self.talk.config.blind
        return [letter if blind else f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=True)]

    def place(self, name: str | None) -> Path | None:
        """Where a picture of the talk lies."""
        return None if name is None else self.talk.folder / name

    def take(self, sent: Any, shown: PageState) -> Outputs:
        """A picture came in as a file: state, picture, status. Another picture is another talk."""
        try:
            name = self.talk.take(self._bytes_of(sent), "that was sent")
        except InputError as error:
            return shown, picture(self.place(shown.image)), status(str(error), bad=True)
        return PageState(image=name), picture(self.place(name)), status("")

    def _bytes_of(self, sent: Any) -> bytes:
        """What an upload holds, one byte more than allowed at most; the file is removed."""
        if sent is None:
            return b""
        if self.uploads is None:
            raise InputError("this page takes no pictures")
        return self.uploads.take(sent, self.talk.config.max_bytes)

    def ask(self, prompt: str, shown: PageState) -> Iterator[Outputs]:
        """A question: the question's field, then `spoken`, token by token."""
        asked = ChatQuestion(prompt.strip(), (shown.image,) if shown.image else (), shown.past)
        shown = replace(shown, asked=asked, texts=(), kept="")
        said: tuple[Generation, ...] = ()
        try:
            for said in self.talk.answer(asked):
                yield "", *self.spoken(shown, said)
        except InputError as error:
            yield prompt, *self.spoken(replace(shown, asked=NOTHING), (), problem=str(error))
            return
        shown = replace(shown, texts=tuple(generation.text.strip() for generation in said))
        if len(said) == 1:
            shown = replace(shown, past=_gone_on(asked, shown.texts[0]))
        yield "", *self.spoken(shown, said)

    def keep(self, side: Side, shown: PageState) -> Outputs:
        """A choice; the talk goes on from the better answer, the first voice's where none is."""
        said = tuple(Generation(text, 0, finished=True) for text in shown.texts)
        try:
            rating = self.talk.keep(shown.asked, shown.texts, side)
        except (InputError, OSError) as error:
            return self.spoken(shown, said, problem=f"Nothing was saved: {error}")
        better = shown.texts[rating.verdict == "second"]
        word = "a tie" if side == "tie" else f"{LETTERS[side == 'right']} is better"
        shown = replace(shown, past=_gone_on(shown.asked, better), kept=f"Saved: {word}. The talk goes on from it.")
        return self.spoken(shown, said)

    def begin(self) -> Outputs:
        """A new talk: picture, then `spoken`."""
        return picture(None), *self.spoken(PageState(), ())

    def spoken(self, shown: PageState, said: tuple[Generation, ...], *, problem: str = "") -> Outputs:
        """State, what was said before, a card a voice as it stands on the screen, status, and the three choices."""
        count = len(self.talk.voices)
        texts = [generation.text.strip() for generation in said] or [""] * count
        done = bool(shown.texts)
        notes = [_note(generation, done=done) for generation in said] or [""] * count
        if self.talk.is_swapped(shown.asked):
            texts, notes = texts[::-1], notes[::-1]
        cards = [card(*parts) for parts in zip(self.titles, texts, notes, strict=True)]
        differ = count > 1 and texts[0] != texts[1] and all(texts)
        open_choice = done and differ and not shown.kept
        word = problem or shown.kept
        if done and count > 1 and not word:
            word = "Which is better?" if differ else "There is nothing to choose: both say the same, or nothing."
        before = past(shown.asked.history, shown.asked.prompt) if shown.asked.prompt else past(shown.past, "")
        choices = [self.gradio.update(interactive=open_choice) for _ in CHOICES]
        return shown, before, *cards, status(word, bad=bool(problem)), *choices


def page(gradio: Any, talk: ChatSession, uploads: Uploads) -> Any:
    """The Gradio blocks of a talk."""
    chat = Chat(gradio, talk, uploads)
    with gradio.Blocks(analytics_enabled=False, title="Sightline: chat", fill_width=True) as blocks:
        state = gradio.State(PageState())
        with gradio.Row(elem_id="chat"):
            with gradio.Column(scale=2, min_width=280):
                shown = _html(gradio, picture(None), "picture")
                upload = gradio.UploadButton(
                    "Choose a picture", file_types=["image"], type="filepath", elem_id="upload", size="md"
                )
                fresh = gradio.Button("New talk", elem_id="fresh", size="md")
            with gradio.Column(scale=5, min_width=300):
                before = _html(gradio, "", "past")
                with gradio.Row(elem_id="answers"):
                    cards = [_html(gradio, card(title, "", ""), f"side-{n}") for n, title in enumerate(chat.titles)]
                line = _html(gradio, status(""), "status")
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
                    max_length=talk.config.longest,
                    elem_id="question",
                )
                send = gradio.Button("Ask", variant="primary", elem_id="send")
        gradio.HTML("", js_on_load=page_file("chat/page.js"), elem_id="keys", apply_default_css=False)
        spoken = [state, before, *cards, line, *buttons.values()]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        upload.upload(chat.take, [upload, state], [state, shown, line], **quiet)
        for event in (question.submit, send.click):
            event(
                chat.ask, [question, state], [question, *spoken], concurrency_limit=1, concurrency_id="models", **quiet
            )
        for side, button in buttons.items():
            button.click(_choosing(chat, side), [state], spoken, **quiet)
        fresh.click(chat.begin, None, [shown, *spoken], **quiet)
    return blocks


def _html(gradio: Any, value: str, name: str) -> Any:
    return gradio.HTML(value, elem_id=name, apply_default_css=False, js_on_load=None, min_width=240)


def _choosing(chat: Chat, side: Side) -> Callable[[PageState], Outputs]:
    def keep(shown: PageState) -> Outputs:
        return chat.keep(side, shown)

    return keep


def _note(generation: Generation, *, done: bool) -> str:
    """What stands below an answer."""
    if generation.finished:
        return ""
    return "cut off by max_new_tokens" if done else "…"


def _gone_on(asked: ChatQuestion, answer: str) -> tuple[Turn, ...]:
    return (*asked.history, Turn(role="user", text=asked.prompt), Turn(role="assistant", text=answer))
