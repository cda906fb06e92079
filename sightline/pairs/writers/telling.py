"""A draft as a turn for a model that reads and perhaps sees: what the endpoint's writer and the policy share."""

from dataclasses import replace
from pathlib import Path

from sightline.models.prompts import Prefix
from sightline.pairs.conversation import told
from sightline.pairs.writers.base import Draft
from sightline.pairs.writers.prompts import NEEDS_PICTURE, prompt_of
from sightline.records.rows import IMAGE

NO_PICTURE, NO_TEXT, CUT_OFF = "the task needs a picture, and there is none", "empty reply", "cut off at max_tokens"


def task_text(draft: Draft) -> str:
    """The task's prompt about the whole conversation; the places of pictures inside it are words, not pictures."""
    about = draft.about
    question = Prefix(about.prefix.images, told(about.prefix))
    return prompt_of(replace(draft, about=replace(about, prefix=question, answer=about.answer.replace(IMAGE, ""))))


def pictures_of(draft: Draft) -> tuple[Path, ...]:
    """The pictures that the task needs; for the others a picture would only cost, or give the change away."""
    return draft.about.prefix.images if draft.task in NEEDS_PICTURE else ()


def lacks_picture(draft: Draft) -> bool:
    """Whether the task needs a picture that the sample does not have."""
    return draft.task in NEEDS_PICTURE and not draft.about.prefix.images
