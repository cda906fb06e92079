"""A chat with one model or two: incoming pictures, streamed answers, and preferences saved as labels.

Independent of the web page. The output is a labels directory, as `sightline label` writes it, which `sightline pairs
from-labels` and `sightline label --agreement` read.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sightline.apps.chat.config import ChatConfig
from sightline.apps.label.session import is_swapped
from sightline.data.images import keep_embedded, open_upload
from sightline.data.labels import ITEMS, RaterFile, is_labels, read_items
from sightline.errors import InputError
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.sampler import stream
from sightline.models.vlm import VLM
from sightline.records import LabelItem, RatedAnswer, Rating, Turn, append_rows, hash_json

Side = Literal["left", "right", "tie"]


@dataclass(frozen=True)
class NamedModel:
    """A model and the name shown above its answers."""

    name: str
    vlm: VLM


@dataclass(frozen=True)
class ChatQuestion:
    """A question with its history; pictures are named relative to the chat's folder."""

    prompt: str
    images: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()

    def identity(self, texts: Sequence[str]) -> str:
        """An id for this question with these answers."""
        turns = [turn.model_dump() for turn in self.history]
        return f"chat-{hash_json([self.images, turns, self.prompt, list(texts)])[:16]}"


@dataclass
class ChatSession:
    """One rater's chat with the models, in one folder. `known` are the ids of the saved items."""

    folder: Path
    models: tuple[NamedModel, ...]
    config: ChatConfig
    rater: RaterFile
    seed: int = 0
    known: set[str] = field(default_factory=set)

    @classmethod
    def begin(
        cls, folder: Path, models: Sequence[NamedModel], config: ChatConfig, rater: str, seed: int = 0
    ) -> "ChatSession":
        """Start a chat in a new folder, or resume one.

        Raises:
            InputError: an invalid rater name, or a bad row of the earlier chat.
        """
        known = set(read_items(folder)) if is_labels(folder) else set()
        return cls(folder, tuple(models), config, RaterFile.open(folder, rater), seed, known)

    def take(self, data: bytes, name: str) -> str:
        """Save an uploaded picture, re-encoded without metadata; returns its name.

        Raises:
            InputError: as `data.images.open_upload`.
        """
        image = open_upload(data, name, max_bytes=self.config.max_bytes, max_pixels=self.config.max_pixels)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return keep_embedded(buffer.getvalue(), "picture.png", self.folder)

    def is_swapped(self, question: ChatQuestion) -> bool:
        """Whether the second model's answer is shown on the left."""
        blind = self.config.blind and len(self.models) > 1
        return blind and is_swapped(self.seed, self.rater.rater, question.identity(()))

    def answer(self, question: ChatQuestion) -> Iterator[tuple[Generation, ...]]:
        """Stream the answers so far, in the models' order, after every token; the models take turns.

        Raises:
            InputError: the question is empty or too long, or the sampler rejects it.
        """
        if not question.prompt.strip():
            raise InputError("the question is empty; enter one")
        if len(question.prompt) > self.config.longest:
            raise InputError(
                f"the question has {len(question.prompt)} characters; the limit is {self.config.longest}, shorten it"
            )
        sampling = Sampling(self.config.max_new_tokens, self.config.temperature, self.config.top_p)
        prefix = Prefix(tuple(self.folder / image for image in question.images), question.prompt, question.history)
        # One seed per model; otherwise a model compared with itself would give the same answer twice.
        speaking = {
            number: stream(
                model.vlm, GenerateRequest(prefix, seed=self.seed + number), sampling, autocast=self.config.autocast
            )
            for number, model in enumerate(self.models)
        }
        generations = [Generation("", 0, finished=False) for _ in self.models]
        while speaking:
            for number, words in list(speaking.items()):
                more = next(words, None)
                if more is None:
                    del speaking[number]
                else:
                    generations[number] = more
                    yield tuple(generations)

    def keep(self, question: ChatQuestion, texts: Sequence[str], side: Side) -> Rating:
        """Save a preference between two answers in the models' order; `side` is the better one on the screen.

        Raises:
            InputError: the answers are not two different, non-empty texts.
        """
        if len(texts) != 2 or texts[0].strip() == texts[1].strip() or not all(text.strip() for text in texts):
            raise InputError("a preference needs two different answers; ask again or change the question")
        swapped = self.is_swapped(question)
        name = question.identity(texts)
        if name not in self.known:
            append_rows(self.folder / ITEMS, [self._item(name, question, texts)])
            self.known.add(name)
        verdict: Literal["first", "second", "tie"] = "tie"
        if side != "tie":
            verdict = "second" if (side == "right") != swapped else "first"
        rating = Rating(item=name, rater=self.rater.rater, verdict=verdict, swapped=swapped)
        self.rater.add(rating)
        return rating

    def _item(self, name: str, question: ChatQuestion, texts: Sequence[str]) -> LabelItem:
        first, second = (RatedAnswer(id=model.name, text=text) for model, text in zip(self.models, texts, strict=True))
        return LabelItem(
            id=name,
            sample_id=name,
            images=question.images,
            history=question.history,
            prompt=question.prompt,
            cluster=question.images[0] if question.images else name,
            first=first,
            second=second,
        )
