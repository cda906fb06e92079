"""Annotators: language models that explain, check and generate pairs of records, and their prompts.

An annotator is an endpoint or a local model directory; it replies to a text with a text. Each step interprets the
replies itself.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.models.opening import open_model, resolve_spec
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.spec import ModelField, ModelSpec
from sightline.recipes.matching.entities.pairs import EntityPair
from sightline.records.manifest import StageInput

NO_REPLY = "the annotator gave no reply"


@dataclass(frozen=True)
class AnnotatorInput:
    """A text to reply to; `seed` determines a sampled reply."""

    text: str
    seed: int = 0


class Annotator(Protocol):
    """Replies to texts, in order; None for a failed call or a truncated reply."""

    def reply(self, inputs: Sequence[AnnotatorInput]) -> list[str | None]: ...


class EndpointAnnotatorConfig(Config):
    """A model on an OpenAI-compatible server; its replies are cached, so that a stopped run resumes."""

    name: Literal["endpoint"] = Field(description="selects this annotator")
    server: EndpointConfig = Field(description="the server of the annotator")

    def open(self) -> Annotator:
        """The annotator."""
        return _Server(Endpoint(self.server))

    @property
    def inputs(self) -> dict[str, Path]:
        """The directories that it reads."""
        return {}


class ModelAnnotatorConfig(Config):
    """A model directory, optionally with an adapter."""

    name: Literal["model"] = Field(description="selects this annotator")
    model: ModelField = Field(description="a name, or a mapping of ModelSpec")
    adapter: Path | None = Field(default=None, description="directory of its adapter; null: none")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    max_new_tokens: int = Field(default=512, gt=0, description="a longer reply counts as failed")
    batch_size: int = Field(default=8, gt=0, description="prompts answered together")

    def open(self) -> Annotator:
        """The annotator."""
        return _Local(self)

    @property
    def spec(self) -> ModelSpec:
        """How to open the model."""
        return self.model.with_options({"adapter": self.adapter} | self.model.given())

    @property
    def inputs(self) -> dict[str, StageInput]:
        """The directories that it reads."""
        return resolve_spec(self.spec).inputs("annotator")


AnnotatorConfig = Annotated[EndpointAnnotatorConfig | ModelAnnotatorConfig, Field(discriminator="name")]


class _Server:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def reply(self, inputs: Sequence[AnnotatorInput]) -> list[str | None]:
        return [reply.text for reply in self._endpoint.ask([Ask(one.text, seed=one.seed) for one in inputs])]


class _Local:
    def __init__(self, config: ModelAnnotatorConfig) -> None:
        self._config = config
        self._vlm = open_model(config.spec)

    def reply(self, inputs: Sequence[AnnotatorInput]) -> list[str | None]:
        config = self._config
        generations = generate(
            self._vlm,
            [GenerateRequest(Prefix((), one.text), seed=one.seed) for one in inputs],
            Sampling(config.max_new_tokens, config.temperature),
            batch_size=config.batch_size,
        )
        return [one.text.strip() if one.finished else None for one in generations]


Style = Literal["brief", "detailed", "similar"]
_RECORD = TypeAdapter(dict[str, str])

LONG = (
    "Below are two {noun} descriptions. {truth} Explain step by step which parts of them speak for that and which "
    "against it, and how much each weighs. Reply with the explanation alone."
)
SHORT = (
    "Explain in one short sentence why two {noun} descriptions belong together or not, as in the examples. Reply with "
    "the sentence alone."
)
STRUCTURED = (
    "Below are two {noun} descriptions. {truth} Compare them attribute by attribute ({attributes}). Write one line for "
    "each attribute, in exactly this form and with nothing else:\n"
    "attribute=NAME|||importance=NUMBER|||values=FIRST###SECOND|||similarity=NUMBER\n"
    "Importance is from -1 to 1: how much the attribute speaks for a match, below 0 against it. Similarity is from 0 "
    "to 1. Write missing for a value that is not there."
)
INTERESTING = (
    "Below are two {noun} descriptions. {truth} Would someone who learns to tell which descriptions belong together "
    "learn something from this pair, which a glance would not have told? Reply with Yes or No alone."
)
_BRIEF = (
    "Invent four further pairs of {noun} descriptions in the manner of the pair below: one that matches and three that "
    "do not."
)
_DETAILED = (
    " Stay in the same category. Make them hard: descriptions that match must be worded differently, those that do not "
    "must differ in a detail alone, such as a model, a number or an edition. The two of a pair must never be the same "
    "text."
)
GENERATE: dict[Style, str] = {
    "brief": _BRIEF,
    "detailed": _BRIEF + _DETAILED,
    "similar": _BRIEF + _DETAILED + " Further pairs of the kind are shown as examples.",
}
FORM = (
    "Reply with four lines, each a JSON object with the keys match (true or false), left and right; left and right are "
    "objects with the keys {attributes}."
)
#: The two examples of `SHORT`, with their labels (in the style of Wadhwa et al. 2024).
EXAMPLES = (
    ("Lumo desk lamp LX-20, black", "LUMO LX20 lamp (desk, blk)", True, "Maker, model and color agree."),
    ("Lumo desk lamp LX-20, black", "Lumo desk lamp LX-25, black", False, "The models differ, LX-20 and LX-25."),
)


def pair_prompt(pair: EntityPair, task: str) -> str:
    """The prompt of a task about one pair; the label is stated if the task asks for it."""
    left, right = pair.texts
    truth = f"They {'stand' if pair.match else 'do not stand'} for the same real-world {pair.noun}."
    instruction = task.format(noun=pair.noun, truth=truth, attributes=", ".join(pair.attributes))
    return f"{instruction}\n\nFirst {pair.noun}: {left}\nSecond {pair.noun}: {right}"


def short_prompt(pair: EntityPair) -> str:
    """The prompt of a short explanation: two examples, then the pair with its label."""
    shown = [*EXAMPLES, (*pair.texts, pair.match, "")]
    lines = [
        f"First: {left}\nSecond: {right}\nMatch: {'Yes' if match else 'No'}\nWhy: {why}"
        for left, right, match, why in shown
    ]
    return "\n\n".join([SHORT.format(noun=pair.noun), *lines]).rstrip()


def generation_prompt(pair: EntityPair, style: Style, examples: Sequence[EntityPair]) -> str:
    """The prompt for four new pairs, with `examples` if there are any."""
    instruction = f"{GENERATE[style].format(noun=pair.noun)} {FORM.format(attributes=', '.join(pair.attributes))}"
    return "\n".join([instruction, "", *(_as_json(one) for one in (pair, *examples))])


def read_generated(reply: str) -> tuple[list[tuple[bool, dict[str, str], dict[str, str]]], int]:
    """The pairs of a reply, one JSON object per line, and the number of lines that look like one but are invalid."""
    found, broken = [], 0
    for line in re.findall(r"^\W*?(\{.*\})\W*$", reply, re.MULTILINE):
        try:
            value = json.loads(line)
            if not isinstance(value["match"], bool):
                raise TypeError("match is not a boolean")
            found.append((value["match"], _record(value["left"]), _record(value["right"])))
        except (ValueError, KeyError, TypeError, ValidationError):
            broken += 1
    return found, broken


def _record(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        value = {name: str(inner) if isinstance(inner, int | float) else inner or "" for name, inner in value.items()}
    return {name: " ".join(inner.split()) for name, inner in _RECORD.validate_python(value).items()}


def _as_json(pair: EntityPair) -> str:
    records = {
        side: {name: record.get(name, "") for name in pair.attributes}
        for side, record in (("left", pair.left), ("right", pair.right))
    }
    return json.dumps({"match": pair.match, **records}, ensure_ascii=False)
