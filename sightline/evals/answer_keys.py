"""Detection of the key that holds the model's answer in a row that may also hold the truth, the question and more.

Some names, such as `prediction`, are used for model answers alone. Others, such as `answer`, are the truth or the
question in some files; they are used only if no other key can be the model's. Ambiguous rows are refused.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.evals.questions import repeats_question

#: Names that are used for model answers alone.
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
#: Names that hold the truth, a reference or the question in some files.
OPEN_KEYS = ("answer", "caption", "text")
#: Keys of the question. `text` is one too where another key holds the answer.
QUESTION_KEYS = ("question", "prompt", "query")

#: Parts of custom names that a model's answer may have.
_LIKE_A_MODEL = re.compile(r"pred|output|respons|resps|generat|completion|hypothes|reply|model_?(?:answer|text|said)")
_REMEDY = "name the key with --answer-key KEY"


class ModelAnswer(NamedTuple):
    """The model's answer in a row, its key, and the row's question (empty if it has none)."""

    key: str
    text: str
    question: str


class AnswerKeys:
    """Reader of one file's rows; if one row uses a key of `MODEL_KEYS`, all rows must."""

    def __init__(self, key: str | None = None) -> None:
        self.key = key
        self._certain: str | None = None
        self._uncertain: str | None = None

    def read(self, row: Mapping[str, Any], where: str) -> ModelAnswer:
        """The answer of a row.

        Raises:
            InputError: the row has no answer, or several candidates.
        """
        if self.key is not None:
            return ModelAnswer(self.key, _text_under(row, self.key, where), question_in(row, self.key))
        shape = _classify_keys(tuple(row))
        if shape.models:
            key = _model_key(row, shape.models, where)
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
            f"{where}: the answer is under {key!r}, in earlier rows under {before!r}, and one may be the truth;"
            f" {_REMEDY}"
        )


def question_in(row: Mapping[str, Any], answer_key: str) -> str:
    """The row's question, all keys joined; a list of texts is joined by line breaks."""
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


def _model_key(row: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    """The key of the model's answer among `MODEL_KEYS`: the first with text; all texts must be equal."""
    texts = [key for key in keys if isinstance(row[key], str)]
    if not texts:
        raise _no_answer_error(row, keys, where)
    if len({row[key] for key in texts}) > 1:
        raise _ambiguous_error(row, texts, where)
    return texts[0]


def _open_key(row: Mapping[str, Any], shape: "_KeyRoles", where: str) -> str:
    """The key of the answer among `OPEN_KEYS`."""
    there = [key for key in shape.others if row[key] is not None]
    questions = [row[key] for key in QUESTION_KEYS if isinstance(row.get(key), str)]
    text = next((key for key in there if _normalize(key) == "text"), None)
    if text is not None and len(there) > 1 and isinstance(row[text], str):
        if not questions or any(repeats_question(question, row[text]) for question in questions):
            there.remove(text)  # it is the question, as in the lists of POPE and LLaVA
        elif isinstance(row.get("prompt"), str):
            there = [text]  # LLaVA's answers, with the truth added
    if not there or not isinstance(row[there[0]], str):
        raise _no_answer_error(row, there, where)
    if len({str(row[key]) for key in there}) > 1:
        raise _ambiguous_error(row, there, where)
    key = there[0]
    for other in shape.like_models:
        if isinstance(row[other], str) and row[other] != row[key]:
            raise _ambiguous_error(row, [key, other], where)
    return key


def _text_under(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    while isinstance(value, list) and len(value) == 1:  # as lmms-eval writes replies
        value = value[0]
    if not isinstance(value, str):
        keys = ", ".join(map(str, row))
        raise InputError(
            f"{where}: {key} = {shorten(value)} is not text; the row's keys are {keys}; correct --answer-key"
        )
    return value


def _no_answer_error(row: Mapping[str, Any], keys: Sequence[str], where: str) -> InputError:
    found = ", ".join(f"{key} = {shorten(row[key])}" for key in keys) or "none"
    known = ", ".join((*MODEL_KEYS, *OPEN_KEYS))
    return InputError(f"{where}: the answer must be text under one of {known} (found: {found}), or {_REMEDY}")


def _ambiguous_error(row: Mapping[str, Any], keys: Sequence[str], where: str) -> InputError:
    found = ", ".join(f"{key} = {shorten(row[key])}" for key in keys)
    return InputError(f"{where}: {found}: one is the model's answer, another may be the truth; {_REMEDY}")


class _KeyRoles(NamedTuple):
    """Candidate keys of a row: from `MODEL_KEYS`, from `OPEN_KEYS`, and others whose name resembles a model's."""

    models: tuple[str, ...]
    others: tuple[str, ...]
    like_models: tuple[str, ...]


@lru_cache(maxsize=1024)
def _classify_keys(keys: tuple[str, ...]) -> _KeyRoles:
    names = {_normalize(key): key for key in keys}
    models = tuple(names[name] for key in MODEL_KEYS if (name := _normalize(key)) in names)
    others = tuple(names[name] for key in OPEN_KEYS if (name := _normalize(key)) in names)
    known = {*models, *others}
    return _KeyRoles(models, others, tuple(k for k in keys if k not in known and _LIKE_A_MODEL.search(k.lower())))


def _normalize(key: str) -> str:
    """The key in lower case, letters and digits only: `Model Answer`, `modelAnswer` and `model_answer` are equal."""
    return re.sub(r"[^a-z0-9]", "", key.lower())
