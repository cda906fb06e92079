"""Pairs of records with their label, as rows and within samples, with the prompts and the parsing of answers.

`reading` reads pairs from files; `structured` compares their values.
"""

import re
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from sightline.config.problems import describe, shorten
from sightline.errors import InputError
from sightline.records.rows import Row, Sample

QUESTIONS = {
    "complex": "Two {noun} descriptions follow. Do they stand for one and the same real-world {noun}?",
    "simple": "Two {noun} descriptions follow. Do they match?",
}
FORMS = {"free": "", "force": " Say Yes or No, and nothing else."}
#: The names of the paper's four prompts.
PROMPTS = tuple(f"{question}-{form}" for question in QUESTIONS for form in FORMS)
#: The paper's training prompt.
TRAINING = "complex-free"
_WORD = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)


def match_prompt(name: str, noun: str, left: str, right: str) -> str:
    """The prompt `name` about two records of a kind."""
    question, _, form = name.partition("-")
    sentence = QUESTIONS[question].format(noun=noun) + FORMS[form]
    return f"{sentence}\nFirst {noun}: {left}\nSecond {noun}: {right}"


def read_match(text: str) -> bool | None:
    """An answer's label by the paper's rule: "yes" anywhere is a match, else "no" anywhere is none; None is neither."""
    answer = text.lower()
    if "yes" in answer:
        return True
    return False if "no" in answer else None


def is_quirk(text: str) -> bool:
    """Whether that rule decides by letters inside words ("cannot"), or against the first yes or no."""
    found = _WORD.search(text)
    plain = None if found is None else found.group().lower() == "yes"
    return plain is not read_match(text)


#: `Sample.task` of a question about a pair.
TASK = "matching"
#: Keys that the benchmark adds to a sample's truth: the prompt's name, and the string rule's label.
PROMPT_KEY, RULE_KEY = "prompt", "string_rule"


class EntityPair(Row):
    """Two records, attribute by attribute in their table's order, and whether they are the same real-world entity.

    A missing value is empty. `noun` names their kind: product, publication, restaurant.
    """

    id: str
    left: dict[str, str]
    right: dict[str, str]
    match: bool
    noun: str = "entity"
    fields: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes shown to a model: `fields`, or all that either record has."""
        return self.fields or tuple(dict.fromkeys((*self.left, *self.right)))

    @property
    def texts(self) -> tuple[str, str]:
        """Both records as a model reads them."""
        return record_text(self.left, self.attributes), record_text(self.right, self.attributes)

    @property
    def label(self) -> str:
        """The answer, with which the completion of a training row begins."""
        return "Yes" if self.match else "No"


def record_text(record: Mapping[str, str], attributes: Sequence[str]) -> str:
    """The values of the attributes in order, joined by "; " as in arXiv 2409.08185; missing ones are omitted."""
    return "; ".join(value for name in attributes if (value := record.get(name, "").strip()))


def make_sample(pair: EntityPair, prompt: str = TRAINING, explanation: str = "") -> Sample:
    """The pair as a question by one of the prompts, with label and explanation as the reference."""
    return Sample(
        id=pair.id,
        prompt=match_prompt(prompt, pair.noun, *pair.texts),
        reference=f"{pair.label}\n{explanation}" if explanation else pair.label,
        task=TASK,
        cluster=pair.id,
        truth=pair.model_dump(mode="json"),
    )


def read_pair(sample: Sample, where: str) -> EntityPair:
    """The pair of a sample of `sightline match` or of the benchmark.

    Raises:
        InputError: its truth is not that of `sightline match`.
    """
    try:
        added = (PROMPT_KEY, RULE_KEY)
        return EntityPair.model_validate({key: value for key, value in sample.truth.items() if key not in added})
    except ValidationError as error:
        raise InputError(
            f"{where}: sample {shorten(sample.id)} is not about a pair of records ({describe(error, EntityPair)}); "
            "create samples with `sightline match read`"
        ) from error
