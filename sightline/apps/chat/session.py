"""A talk with one model or two: pictures that come in, answers token by token, and preferences kept as labels.

It knows no page. What it writes is a labels directory as `sightline label` writes it, so that `sightline pairs
from-labels` and `sightline label --agreement` read both alike.
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
    """A model under the name that its answers go by."""

    name: str
    vlm: VLM


@dataclass(frozen=True)
class ChatQuestion:
    """A question with what came before it; pictures by their names in the talk's folder."""

    prompt: str
    images: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()

    def identity(self, texts: Sequence[str]) -> str:
        """A name of this question with these answers."""
        told = [turn.model_dump() for turn in self.history]
        return f"chat-{hash_json([self.images, told, self.prompt, list(texts)])[:16]}"


@dataclass
class ChatSession:
    """One rater's talk with the voices, in one folder."""

    folder: Path
    voices: tuple[NamedModel, ...]
    config: ChatConfig
    rater: RaterFile
    seed: int = 0
    known: set[str] = field(default_factory=set)

    @classmethod
    def begin(
        cls, folder: Path, voices: Sequence[NamedModel], config: ChatConfig, rater: str, seed: int = 0
    ) -> "ChatSession":
        """A talk in a new folder, or gone on with.

        Raises:
            InputError: no name of a rater, or a bad row of an earlier talk.
        """
        known = set(read_items(folder)) if is_labels(folder) else set()
        return cls(folder, tuple(voices), config, RaterFile.open(folder, rater), seed, known)

    def take(self, data: bytes, name: str) -> str:
        """Keep a picture that was sent, written anew without whatever else its file said; returns its name.

        Raises:
            InputError: as `data.images.open_upload`.
        """
        image = open_upload(data, name, max_bytes=self.config.max_bytes, max_pixels=self.config.max_pixels)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return keep_embedded(buffer.getvalue(), "picture.png", self.folder)

    def is_swapped(self, asked: ChatQuestion) -> bool:
        """Whether the second voice stands on the left."""
        blind = self.config.blind and len(self.voices) > 1
        return blind and is_swapped(self.seed, self.rater.rater, asked.identity(()))

    def answer(self, asked: ChatQuestion) -> Iterator[tuple[Generation, ...]]:
        """What every voice has said so far, in their order, told whenever one said more; they take turns.

        Raises:
            InputError: an empty or too long question, or what the sampler refuses.
        """
        if not asked.prompt.strip():
            raise InputError("the question is empty; write one")
        if len(asked.prompt) > self.config.longest:
            raise InputError(
                f"the question has {len(asked.prompt)} characters, and {self.config.longest} may be asked; shorten it"
            )
        sampling = Sampling(self.config.max_new_tokens, self.config.temperature, self.config.top_p)
        prefix = Prefix(tuple(self.folder / image for image in asked.images), asked.prompt, asked.history)
        # Each voice has its own stream of chance, or the same model twice would say the same.
        speaking = {
            number: stream(
                voice.vlm, GenerateRequest(prefix, seed=self.seed + number), sampling, autocast=self.config.autocast
            )
            for number, voice in enumerate(self.voices)
        }
        said = [Generation("", 0, finished=False) for _ in self.voices]
        while speaking:
            for number, words in list(speaking.items()):
                more = next(words, None)
                if more is None:
                    del speaking[number]
                else:
                    said[number] = more
                    yield tuple(said)

    def keep(self, asked: ChatQuestion, texts: Sequence[str], side: Side) -> Rating:
        """Put a preference between the two answers, in the voices' order, on disk; `side` is the better on the screen.

        Raises:
            InputError: there are no two different answers.
        """
        if len(texts) != 2 or texts[0].strip() == texts[1].strip() or not all(text.strip() for text in texts):
            raise InputError("a preference needs two different answers; ask again, or something else")
        swapped = self.is_swapped(asked)
        name = asked.identity(texts)
        if name not in self.known:
            append_rows(self.folder / ITEMS, [self._item(name, asked, texts)])
            self.known.add(name)
        verdict: Literal["first", "second", "tie"] = "tie"
        if side != "tie":
            verdict = "second" if (side == "right") != swapped else "first"
        rating = Rating(item=name, rater=self.rater.rater, verdict=verdict, swapped=swapped)
        self.rater.add(rating)
        return rating

    def _item(self, name: str, asked: ChatQuestion, texts: Sequence[str]) -> LabelItem:
        first, second = (RatedAnswer(id=voice.name, text=text) for voice, text in zip(self.voices, texts, strict=True))
        return LabelItem(
            id=name,
            sample_id=name,
            images=asked.images,
            history=asked.history,
            prompt=asked.prompt,
            cluster=asked.images[0] if asked.images else name,
            first=first,
            second=second,
        )
