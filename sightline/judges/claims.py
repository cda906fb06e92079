"""The judge that asks a VLM about each claim of an answer, yes or no (RLAIF-V, arXiv 2405.17220, divide and conquer).

An answer's score is minus the number of claims that are denied. How an answer is split is config: by sentences, by the
nouns of a list, or by a writer.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator

from sightline.config import Config
from sightline.data.sentences import split_sentences
from sightline.judges.judge import Judge, Verdict
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import JudgeInput, Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.records import hash_json
from sightline.writers.endpoint import WriterConfig
from sightline.writers.writer import Writer, WriterTask

POLICY = "policy"
_YES_NO = ("Yes", "No")


class ClaimsJudgeConfig(Config):
    """A claim is denied where the model finds No likelier than Yes as the first word of its answer.

    The paper's labeler is LLaVA-NeXT-34B, its splitter an LLM.
    """

    name: Literal["claims"]
    model: str = Field(default=POLICY, description="directory of the VLM that answers, or 'policy' for the one aligned")
    split: Literal["sentences", "nouns", "writer"] = "sentences"
    nouns: tuple[str, ...] = Field(default=(), description="with split 'nouns': what is asked for where it is named")
    question: str = Field(
        default="Is this true of the picture: {claim} Answer yes or no.", description="{claim} is the claim"
    )
    writer: WriterConfig | None = Field(default=None, description="with split 'writer'")
    batch_size: int = Field(default=32, gt=0, description="questions in one pass")
    autocast: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "ClaimsJudgeConfig":
        if "{claim}" not in self.question:
            raise ValueError("question must hold {claim}")
        if (self.split == "nouns") != bool(self.nouns):
            raise ValueError("give nouns with split 'nouns', and only then")
        if (self.split == "writer") != (self.writer is not None):
            raise ValueError("give a writer with split 'writer', and only then")
        return self

    def open(self, tools: RunContext) -> Judge:
        """The judge."""
        vlm = tools.vlm if self.model == POLICY else load_vlm(self.model, cache=open_cache())
        return _Claims(self, vlm, self.writer.open(tools) if self.writer else None)


class _Claims:
    def __init__(self, config: ClaimsJudgeConfig, vlm: VLM, writer: Writer | None) -> None:
        self._config, self._vlm, self._writer = config, vlm, writer
        plain = config.model_dump(mode="json", exclude={"batch_size"})
        self.identity = hash_json(["claims", plain, vlm.path, writer.identity if writer else ""])

    def score(self, asked: Sequence[JudgeInput]) -> list[Verdict]:
        claims = self._split(asked)
        questions = [
            replace(one.prefix, prompt=self._config.question.replace("{claim}", claim), history=())
            for one, told in zip(asked, claims, strict=True)
            for claim in told or ()
        ]
        answers = iter(self._affirmed(questions))
        verdicts = []
        for told in claims:
            if told is None:
                verdicts.append(Verdict(None, note="could not be split into claims"))
                continue
            denied = [claim for claim in told if not next(answers)]
            verdicts.append(Verdict(-float(len(denied)), {"claims": float(len(told))}, note="; ".join(denied)))
        return verdicts

    def _split(self, asked: Sequence[JudgeInput]) -> list[list[str] | None]:
        if self._writer is not None:
            written = self._writer.write([WriterTask("split", one) for one in asked])
            return [w.text.splitlines() if w.text is not None else None for w in written]
        if self._config.split == "nouns":
            return [list(named(one.answer, self._config.nouns)) for one in asked]
        return [[sentence.strip() for sentence in split_sentences(one.answer)] for one in asked]

    def _affirmed(self, questions: Sequence[Prefix]) -> list[bool]:
        """Whether each question is answered with yes."""
        found: list[bool] = []
        for start in range(0, len(questions), self._config.batch_size):
            items = [ScoreRequest(prefix, _YES_NO) for prefix in questions[start : start + self._config.batch_size]]
            with torch.no_grad():
                first = answer_logps(self._vlm, items, autocast=self._config.autocast).values[:, :, 0]
            found += (first[:, 0] > first[:, 1]).tolist()
        return found


def named(text: str, nouns: Sequence[str]) -> list[str]:
    """The nouns that a text names, each once with its article, in the order of the list; plurals count."""
    return [
        f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
        for noun in nouns
        if re.search(rf"\b{re.escape(noun)}(?:e?s)?\b", text, re.IGNORECASE)
    ]
