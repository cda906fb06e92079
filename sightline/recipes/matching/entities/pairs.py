"""A pair of records and whether they match, as a row of its own and inside a sample that asks about it.

How a model is asked is `prompts`, where pairs come from `reading`. Nothing is compared here; that is `similarity`.
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
#: Every prompt by name, the paper's four.
PROMPTS = tuple(f"{question}-{form}" for question in QUESTIONS for form in FORMS)
#: The prompt that the paper trains with.
TRAINING = "complex-free"
_WORD = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)


def prompt_of(name: str, noun: str, left: str, right: str) -> str:
    """The question `name` about two records of a kind."""
    question, _, form = name.partition("-")
    asked = QUESTIONS[question].format(noun=noun) + FORMS[form]
    return f"{asked}\nFirst {noun}: {left}\nSecond {noun}: {right}"


def read_match(text: str) -> bool | None:
    """What an answer says, by the paper's rule: "yes" anywhere is a match, else "no" anywhere none; None is neither."""
    said = text.lower()
    if "yes" in said:
        return True
    return False if "no" in said else None


def is_quirk(text: str) -> bool:
    """Whether that rule decides by letters inside of words ("cannot"), or against the word that comes first."""
    found = _WORD.search(text)
    plain = None if found is None else found.group().lower() == "yes"
    return plain is not read_match(text)


#: `Sample.task` of a question about a pair.
TASK = "matching"
#: What the benchmark adds to a sample's truth: the prompt it is asked by, and what the rule of strings says of it.
PROMPT_KEY, RULE_KEY = "prompt", "string_rule"


class EntityPair(Row):
    """Two records, attribute by attribute in the order of their table, and whether they are of one real-world thing.

    A value that is missing is empty. `noun` says what they are: product, publication, restaurant.
    """

    id: str
    left: dict[str, str]
    right: dict[str, str]
    match: bool
    noun: str = "entity"
    fields: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that are told to a model: `fields`, or all that either record has."""
        return self.fields or tuple(dict.fromkeys((*self.left, *self.right)))

    @property
    def texts(self) -> tuple[str, str]:
        """Both records as a model reads them."""
        return text_of(self.left, self.attributes), text_of(self.right, self.attributes)

    @property
    def label(self) -> str:
        """The answer, as the completion of a training row begins."""
        return "Yes" if self.match else "No"


def text_of(record: Mapping[str, str], attributes: Sequence[str]) -> str:
    """The values of the attributes in order, parted by "; " as in arXiv 2409.08185; missing ones are left out."""
    return "; ".join(value for name in attributes if (value := record.get(name, "").strip()))


def sample_of(pair: EntityPair, prompt: str = TRAINING, explanation: str = "") -> Sample:
    """The pair as a question by one of the prompts, its label and explanation as the reference."""
    return Sample(
        id=pair.id,
        prompt=prompt_of(prompt, pair.noun, *pair.texts),
        reference=f"{pair.label}\n{explanation}" if explanation else pair.label,
        task=TASK,
        cluster=pair.id,
        truth=pair.model_dump(mode="json"),
    )


def pair_of(sample: Sample, where: str) -> EntityPair:
    """The pair that a sample asks about, one of `sightline match` or of the benchmark.

    Raises:
        InputError: its truth is not that of `sightline match`.
    """
    try:
        added = (PROMPT_KEY, RULE_KEY)
        return EntityPair.model_validate({key: value for key, value in sample.truth.items() if key not in added})
    except ValidationError as error:
        raise InputError(
            f"{where}: sample {shorten(sample.id)} asks about no pair of records ({describe(error, EntityPair)}); "
            "make samples with `sightline match read`"
        ) from error
