"""What a judge is asked about one answer, and how its reply is read: a prompt, a rule, and a hash of both.

Nothing is sent from here (`verdicts` does that) and no answer is scored: benchmarks make the cases and turn readings
into scores. The prompts are our own words after the published protocols; `template_of` takes anyone else's from a file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sightline.errors import InputError
from sightline.records import hash_json

#: What a prompt may name in braces, in the order of the `{}` of a prompt that names nothing.
FIELDS = ("context", "question", "reference", "answer")
_FIELD = re.compile(r"\{(context|question|reference|answer)\}")

#: What a reply says, by name; None where it breaks the rule.
Reading = Mapping[str, float] | None


@dataclass(frozen=True)
class Case:
    """One answer to grade. `context` is what the judge is told of the picture, `images` what it is shown of it."""

    question: str
    answer: str
    reference: str = ""
    context: str = ""
    category: str = ""
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Grading:
    """A protocol of grading: `read` is its rule, `rule` the rule's version, `hint` is added where a reply broke it.

    `prompts` holds prompts of single categories, where they differ. `tries` is how often a reply that breaks the rule
    is asked for again, as some official scripts do. `worth` turns a reading into the share of the best grade, in
    [0, 1], so that anchors of one kind serve every protocol.
    """

    name: str
    prompt: str
    read: Callable[[str], Reading]
    worth: Callable[[Mapping[str, float]], float]
    rule: int = 1
    prompts: Mapping[str, str] = field(default_factory=dict)
    shows_image: bool = False
    hint: str = ""
    tries: int = 1

    @property
    def identity(self) -> str:
        """A hash of prompt and rule; that of the judge adds the server's model and its settings."""
        parts = [self.prompt, dict(self.prompts), self.hint, self.tries, self.shows_image]
        return hash_json([self.name, self.rule, *parts])

    def text(self, case: Case, *, again: bool = False) -> str:
        """What is sent; `again` after a reply that broke the rule."""
        prompt = self.prompts.get(case.category, self.prompt)
        # In one pass: an answer may hold "{question}" itself.
        filled = _FIELD.sub(lambda match: str(getattr(case, match[1])), prompt)
        return filled + self.hint if again else filled

    def with_prompt(self, prompt: str) -> "Grading":
        """The same rule behind another prompt, for every category."""
        return replace(self, prompt=prompt, prompts={})


def template_of(path: Path) -> str:
    """A prompt from a file, such as the official one, which we do not ship.

    It names `{context}`, `{question}`, `{reference}` and `{answer}`, or has `{}` in their place, in that order.

    Raises:
        InputError: the file is not there, or the prompt does not hold the answer.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the judge's prompt cannot be read ({error}); correct `prompt`.") from error
    if text.count("{}") == len(FIELDS) and not _FIELD.search(text):
        for name in FIELDS:
            text = text.replace("{}", f"{{{name}}}", 1)
    if "{answer}" not in text:
        places = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise InputError(f"{path}: the judge's prompt has no {{answer}}; write {places} where they belong.")
    return text
