"""Prompts that tell a language model how to rewrite an answer, one per task, and the reading of its reply.

`corrupt` follows the idea of POVID and of arXiv 2407.02477, table 13: mistakes that cannot be told from the truth
without the image. The texts are hashed into every pair's provenance through the writer's identity.
"""

import re
from dataclasses import replace
from pathlib import Path

from sightline.models.requests import Prefix, conversation_text
from sightline.records.rows import IMAGE
from sightline.writers.writer import Task, WriterTask

_OUTPUT = "Reply with the text alone: no heading, no quotation marks, no remark."

PROMPTS: dict[Task, str] = {
    "corrupt": (
        "Below are a question about a picture and an answer to it. Rewrite the answer so that it is wrong about the "
        "picture in one to three places: name an object, person or animal that is not there, or change a count, a "
        "color, an attribute or a place. Every change must be what one would expect in such a picture, so that a "
        "reader who does not see it could not tell which answer is the true one. Keep length, style and all else. "
        f"{_OUTPUT}\n\nQuestion: {{question}}\nAnswer: {{answer}}"
    ),
    "correct": (
        "Look at the picture. Below are a question about it and an answer. Take out whatever the picture does not show "
        "and mend wrong counts, colors and places; leave every other word as it is. If all is right, repeat the answer "
        f"unchanged. {_OUTPUT}\n\nQuestion: {{question}}\nAnswer: {{answer}}"
    ),
    "alter": (
        "Below are a question about a picture and an answer to it. Choose one phrase that names an object or its "
        "color, number or place, and replace it by another that would be as likely in such a picture but is wrong. "
        f"Change nothing else. {_OUTPUT}\n\nQuestion: {{question}}\nAnswer: {{answer}}"
    ),
    "split": (
        "Below are a question about a picture and an answer to it. List the single facts that the answer states about "
        "the picture, each as a short full sentence that can be understood alone, one a line. Reply with the list "
        "alone.\n\nQuestion: {question}\nAnswer: {answer}"
    ),
    "follow": (
        "Below are a question about a picture, an answer to it, and a wish of whoever will read the answer. Rewrite "
        "the answer so that it meets the wish. State nothing about the picture that the answer does not state; what "
        f"the wish does not want may be left out. {_OUTPUT}\n\nQuestion: {{question}}\nAnswer: {{answer}}\n"
        "Wish: {beside}"
    ),
    "restyle": (
        "Below are a question about a picture and an answer to it. Say the answer again in your own words, as you "
        "would put it by yourself. Keep every fact, add none, and answer the same question. "
        f"{_OUTPUT}\n\nQuestion: {{question}}\nAnswer: {{answer}}"
    ),
    "review": (
        "Below are a question about a picture and two answers, of which the second is to say the same as the first in "
        "other words. Does it state the same facts, none added, none left out and none changed, in good and whole "
        "sentences? Reply with yes or no alone.\n\nQuestion: {question}\nFirst answer: {answer}\n"
        "Second answer: {beside}"
    ),
}

#: Tasks that need the image.
NEEDS_PICTURE: frozenset[Task] = frozenset({"correct"})


def render_prompt(draft: WriterTask) -> str:
    """Return the prompt for a task."""
    values = {"question": draft.about.prefix.prompt, "answer": draft.about.answer, "beside": draft.beside}
    # Not `format`, and all in one pass: a question or an answer may contain braces.
    return re.sub(r"\{(question|answer|beside)\}", lambda match: values[match[1]], PROMPTS[draft.task])


def read_reply(reply: str) -> str | None:
    """Text of a reply, without quotation marks around the whole; None if it is empty."""
    text = reply.strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1].strip()
    return text or None


NO_PICTURE, NO_TEXT, CUT_OFF = "the task needs a picture, and there is none", "empty reply", "cut off at max_tokens"


def task_text(draft: WriterTask) -> str:
    """Render the task's prompt about the whole conversation; placeholders of images inside it become words."""
    about = draft.about
    question = Prefix(about.prefix.images, conversation_text(about.prefix))
    return render_prompt(replace(draft, about=replace(about, prefix=question, answer=about.answer.replace(IMAGE, ""))))


def task_images(draft: WriterTask) -> tuple[Path, ...]:
    """Images that the task needs; for other tasks an image would only add cost, or give the change away."""
    return draft.about.prefix.images if draft.task in NEEDS_PICTURE else ()


def lacks_picture(draft: WriterTask) -> bool:
    """Whether the task needs an image that the sample does not have."""
    return draft.task in NEEDS_PICTURE and not draft.about.prefix.images
