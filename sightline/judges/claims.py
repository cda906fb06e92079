"""Judge that asks a VLM whether each claim of an answer is true (RLAIF-V, arXiv 2405.17220, divide and conquer).

An answer's score is minus the number of its denied claims. The config sets how an answer is split into claims: by
sentences, by a list of nouns, or by a writer.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator

from sightline.config import Config
from sightline.data.texts import split_sentences
from sightline.judges.judge import Judge, Verdict
from sightline.models.context import RunContext
from sightline.models.opening import open_model
from sightline.models.requests import JudgeInput, Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.spec import ModelField, ModelSpec
from sightline.models.vlm import VLM
from sightline.records import hash_json
from sightline.writers.endpoint import WriterConfig
from sightline.writers.writer import Writer, WriterTask

POLICY = "policy"
_YES_NO = ("Yes", "No")


class ClaimsJudgeConfig(Config):
    """A claim is denied if the model finds No likelier than Yes as the first word of its answer.

    The paper's labeler is LLaVA-NeXT-34B; an LLM splits its answers.
    """

    name: Literal["claims"] = Field(description="selects this judge")
    model: ModelField = Field(
        default=ModelSpec(name=POLICY),
        description="a name or a mapping of ModelSpec, or 'policy' for the model being aligned",
    )
    split: Literal["sentences", "nouns", "writer"] = Field(
        default="sentences",
        description="how an answer becomes claims: its sentences, the listed nouns it names, or a writer's list",
    )
    nouns: tuple[str, ...] = Field(default=(), description="with split 'nouns': nouns to ask about if named")
    question: str = Field(
        default="Is this true of the picture: {claim} Answer yes or no.", description="must contain {claim}"
    )
    writer: WriterConfig | None = Field(default=None, description="with split 'writer'")
    batch_size: int = Field(default=32, gt=0, description="questions per forward pass")
    autocast: bool = Field(
        default=False, description="run the forward pass in bfloat16; faster on a GPU, with slightly different numbers"
    )

    @model_validator(mode="after")
    def _complete(self) -> "ClaimsJudgeConfig":
        if "{claim}" not in self.question:
            raise ValueError("question must contain {claim}")
        if (self.split == "nouns") != bool(self.nouns):
            raise ValueError("set nouns if and only if split is 'nouns'")
        if (self.split == "writer") != (self.writer is not None):
            raise ValueError("set writer if and only if split is 'writer'")
        return self

    def open(self, context: RunContext) -> Judge:
        """The judge."""
        vlm = context.vlm if self.model.name == POLICY else open_model(self.model)
        return _Claims(self, vlm, self.writer.open(context) if self.writer else None)


class _Claims:
    def __init__(self, config: ClaimsJudgeConfig, vlm: VLM, writer: Writer | None) -> None:
        self._config, self._vlm, self._writer = config, vlm, writer
        plain = config.model_dump(mode="json", exclude={"batch_size"})
        self.identity = hash_json(["claims", plain, vlm.path, writer.identity if writer else ""])

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        split = self._split(inputs)
        questions = [
            replace(one.prefix, prompt=self._config.question.replace("{claim}", claim), history=())
            for one, claims in zip(inputs, split, strict=True)
            for claim in claims or ()
        ]
        affirmed = iter(self._affirm(questions))
        verdicts = []
        for claims in split:
            if claims is None:
                verdicts.append(Verdict(None, note="could not be split into claims"))
                continue
            denied = [claim for claim in claims if not next(affirmed)]
            verdicts.append(Verdict(-float(len(denied)), {"claims": float(len(claims))}, note="; ".join(denied)))
        return verdicts

    def _split(self, inputs: Sequence[JudgeInput]) -> list[list[str] | None]:
        if self._writer is not None:
            written = self._writer.write([WriterTask("split", one) for one in inputs])
            return [w.text.splitlines() if w.text is not None else None for w in written]
        if self._config.split == "nouns":
            return [find_nouns(one.answer, self._config.nouns) for one in inputs]
        return [[sentence.strip() for sentence in split_sentences(one.answer)] for one in inputs]

    def _affirm(self, questions: Sequence[Prefix]) -> list[bool]:
        """Whether the model answers each question with yes."""
        found: list[bool] = []
        for start in range(0, len(questions), self._config.batch_size):
            items = [ScoreRequest(prefix, _YES_NO) for prefix in questions[start : start + self._config.batch_size]]
            with torch.no_grad():
                first = answer_logps(self._vlm, items, autocast=self._config.autocast).values[:, :, 0]
            found += (first[:, 0] > first[:, 1]).tolist()
        return found


def find_nouns(text: str, nouns: Sequence[str]) -> list[str]:
    """Nouns that a text names, each once with its article, in the order of the list; plurals count."""
    return [
        f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
        for noun in nouns
        if re.search(rf"\b{re.escape(noun)}(?:e?s)?\b", text, re.IGNORECASE)
    ]
