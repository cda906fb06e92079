"""Which key of a row holds the model's answer, where the truth, the question and other texts stand beside it.

Some names belong to a model alone, such as `prediction`. Others, such as `answer`, are the truth or the question in
some files; they are taken only where nothing else can be the model's. What cannot be told apart is refused.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.evals.questions import repeats_question

#: Names that only a model's answer has.
MODEL_KEYS = (
    "model_answer",
    "model_prediction",
    "model_output",
    "model_response",
    "prediction",
    "pred",
    "predict",
    "predicted_answer",
    "pred_answer",
    "response",
    "output",
    "generated_text",
    "generated_answer",
    "generated",
    "generation",
    "completion",
    "filtered_resps",
    "resps",
)
#: Names that are the truth, a reference or the question in some files.
OPEN_KEYS = ("answer", "caption", "text")
#: Keys that say what was asked. `text` does too where another key is the answer.
QUESTION_KEYS = ("question", "prompt", "query")

#: Parts of names that a model's answer may have under a key of somebody's own.
_LIKE_A_MODEL = re.compile(r"pred|output|respons|resps|generat|completion|hypothes|reply|model_?(?:answer|text|said)")
_REMEDY = "say which by --answer-key KEY"


class ModelAnswer(NamedTuple):
    """The model's answer of a row, the key it stands under, and what the row says was asked (empty if nothing)."""

    key: str
    text: str
    question: str


class AnswerKeys:
    """Reads one file's rows; where one row names its answer by a key of a model's, all must."""

    def __init__(self, key: str | None = None) -> None:
        self.key = key
        self._certain: str | None = None
        self._uncertain: str | None = None

    def read(self, row: Mapping[str, Any], where: str) -> ModelAnswer:
        """The answer of a row.

        Raises:
            InputError: the row has none, or several texts may be it.
        """
        if self.key is not None:
            return ModelAnswer(self.key, _text_under(row, self.key, where), question_in(row, self.key))
        shape = _shape_of(tuple(row))
        if shape.models:
            key = _one_of(row, shape.models, where)
            self._certain = self._certain or key
            if self._uncertain is not None:
                self._refuse_change(where, key, self._uncertain)
        else:
            key = _open_key(row, shape, where)
            self._uncertain = self._uncertain or key
            if self._certain is not None:
                self._refuse_change(where, key, self._certain)
        return ModelAnswer(key, row[key], question_in(row, key))

    def _refuse_change(self, where: str, key: str, before: str) -> None:
        raise InputError(
            f"{where}: the answer stands under {key!r}, in earlier rows under {before!r}, and one may be the truth;"
            f" {_REMEDY}"
        )


def question_in(row: Mapping[str, Any], answer_key: str) -> str:
    """What a row says was asked, all of it; a chat that is a list of texts counts as one."""
    found: list[str] = []
    for key in (*QUESTION_KEYS, "text"):
        value = row.get(key)
        if key == answer_key or (key == "text" and found):
            continue
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, str):
            found.append(value)
    return "\n".join(found)


def _one_of(row: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    """The key of the model's answer among names that are a model's: the only one with text, or several alike."""
    texts = [key for key in keys if isinstance(row[key], str)]
    if not texts:
        raise _no_answer(row, keys, where)
    if len({row[key] for key in texts}) > 1:
        raise _several(row, texts, where)
    return texts[0]


def _open_key(row: Mapping[str, Any], shape: "_Shape", where: str) -> str:
    """The key of the answer among names that may be something else."""
    there = [key for key in shape.others if row[key] is not None]
    questions = [row[key] for key in QUESTION_KEYS if isinstance(row.get(key), str)]
    text = next((key for key in there if _plain(key) == "text"), None)
    if text is not None and len(there) > 1 and isinstance(row[text], str):
        if not questions or any(repeats_question(question, row[text]) for question in questions):
            there.remove(text)  # it is the question, as in the lists of POPE and LLaVA
        elif isinstance(row.get("prompt"), str):
            there = [text]  # LLaVA's answers, with the truth added
    if not there or not isinstance(row[there[0]], str):
        raise _no_answer(row, there, where)
    if len({str(row[key]) for key in there}) > 1:
        raise _several(row, there, where)
    key = there[0]
    for other in shape.like_models:
        if isinstance(row[other], str) and row[other] != row[key]:
            raise _several(row, [key, other], where)
    return key


def _text_under(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    while isinstance(value, list) and len(value) == 1:  # as lmms-eval writes replies
        value = value[0]
    if not isinstance(value, str):
        keys = ", ".join(map(str, row))
        raise InputError(
            f"{where}: {key} = {shorten(value)} is no text; the row's keys are {keys}; correct --answer-key"
        )
    return value


def _no_answer(row: Mapping[str, Any], keys: Sequence[str], where: str) -> InputError:
    found = ", ".join(f"{key} = {shorten(row[key])}" for key in keys) or "none"
    known = ", ".join((*MODEL_KEYS, *OPEN_KEYS))
    return InputError(f"{where}: the answer must be text under one of {known} (found: {found}), or {_REMEDY}")


def _several(row: Mapping[str, Any], keys: Sequence[str], where: str) -> InputError:
    found = ", ".join(f"{key} = {shorten(row[key])}" for key in keys)
    return InputError(f"{where}: {found}: one is the model's answer, another may be the truth; {_REMEDY}")


class _Shape(NamedTuple):
    """Keys of a row that may hold its answer: a model's, those that may be others', and those like a model's."""

    models: tuple[str, ...]
    others: tuple[str, ...]
    like_models: tuple[str, ...]


@lru_cache(maxsize=1024)
def _shape_of(keys: tuple[str, ...]) -> _Shape:
    names = {_plain(key): key for key in keys}
    models = tuple(names[name] for key in MODEL_KEYS if (name := _plain(key)) in names)
    others = tuple(names[name] for key in OPEN_KEYS if (name := _plain(key)) in names)
    known = {*models, *others}
    return _Shape(models, others, tuple(k for k in keys if k not in known and _LIKE_A_MODEL.search(k.lower())))


def _plain(key: str) -> str:
    """A key without what spellings differ in: `Model Answer`, `modelAnswer` and `model_answer` are one."""
    return re.sub(r"[^a-z0-9]", "", key.lower())
