"""Grading protocols: a judge's prompt, the rule that reads its reply, and a hash of both.

Requests are sent in `judge_client`; benchmarks build the cases and turn readings into scores. Sightline's prompts are
written after the published protocols; `read_prompt` reads another from a file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sightline.errors import InputError
from sightline.records import hash_json

#: Fields of a prompt in braces; unnamed `{}` are filled in this order.
FIELDS = ("context", "question", "reference", "answer")
_FIELD = re.compile(r"\{(context|question|reference|answer)\}")

#: The values read from a reply, by name; None if the reply is unreadable.
Reading = Mapping[str, float] | None


@dataclass(frozen=True)
class Case:
    """One answer to grade. `context` describes the image to the judge, `images` shows it."""

    question: str
    answer: str
    reference: str = ""
    context: str = ""
    category: str = ""
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Grading:
    """A grading protocol: `read` is its rule, `rule` the rule's version; `hint` is appended after an unreadable reply.

    `prompts` holds prompts of single categories, where they differ. `tries` is the maximum number of requests for a
    readable reply, as in some official scripts. `worth` turns a reading into the share of the best grade, in [0, 1], so
    that the same anchors serve every protocol.
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
        """A hash of prompt and rule; the judge's identity adds the server's model and its settings."""
        parts = [self.prompt, dict(self.prompts), self.hint, self.tries, self.shows_image]
        return hash_json([self.name, self.rule, *parts])

    def text(self, case: Case, *, again: bool = False) -> str:
        """The prompt to send; `again` after an unreadable reply."""
        prompt = self.prompts.get(case.category, self.prompt)
        # In one pass, since an answer may contain "{question}".
        filled = _FIELD.sub(lambda match: str(getattr(case, match[1])), prompt)
        return filled + self.hint if again else filled

    def with_prompt(self, prompt: str) -> "Grading":
        """The same rule with another prompt, for every category."""
        return replace(self, prompt=prompt, prompts={})


def read_prompt(path: Path) -> str:
    """A prompt from a file, such as the official one, which is not shipped.

    It has the fields `{context}`, `{question}`, `{reference}` and `{answer}`, or four `{}` in that order.

    Raises:
        InputError: the file cannot be read, or the prompt lacks the answer.
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
