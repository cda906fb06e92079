"""The lab's truth as a judge: how right an answer is, for `pairs.judges.oracle`; as a writer it is `rewriting`."""

from sightline.evals.yes_no import parse_yes_no
from sightline.lab.parser import Judgement, judge, parse_claims
from sightline.lab.questions import CAPTION_PROMPTS, DESCRIBE_PROMPTS, question_score
from sightline.lab.vocabulary import COLORS
from sightline.lab.words import COUNT_WORDS
from sightline.lab.world import Scene
from sightline.pairs.curation.conversations import ASK
from sightline.pairs.judges.base import Judged, Verdict

_PLACES = frozenset({"left", "right", "top", "bottom", "above", "below"})
_NUMBERS = {name: number for number, name in COUNT_WORDS.items()} | {str(number): number for number in COUNT_WORDS}


def score(asked: Judged) -> Verdict:
    """Minus the mistakes, and for what is right: the share of the scene's kinds that a description names, or 1.

    A question's answer that differs from the reference in what was asked for is one mistake more.
    """
    if "objects" not in asked.truth:
        return Verdict(None, note="the sample has no truth of the lab")
    scene = Scene.from_truth(asked.truth)
    if asked.prefix.prompt == ASK:
        return Verdict(question_score(asked.answer, scene))
    verdict = judge(parse_claims(asked.answer), scene)
    wrong = float(mistakes(verdict))
    if is_description(asked.prefix.prompt):
        right = len(verdict.mentioned) / len(scene.kinds)
    elif asked.reference is None:
        return Verdict(None, note="a question without a reference answer")
    else:
        right = float(_agree(asked.answer, asked.reference))
        wrong += 1 - right
    return Verdict(right - wrong, {"mistakes": -wrong, "right": right})


def is_description(prompt: str) -> bool:
    """Whether the prompt asks to describe the picture, and not for one thing in it."""
    return prompt in (*DESCRIBE_PROMPTS, *CAPTION_PROMPTS)


def mistakes(verdict: Judgement) -> int:
    """Everything that is wrong in a text, counted."""
    return sum(
        len(found)
        for found in (verdict.hallucinated, verdict.wrong_colors, verdict.wrong_counts, verdict.wrong_relations)
    )


def _agree(answer: str, reference: str) -> bool:
    """Whether the answer says what the true one says: yes or no, else its first number, colors and places."""
    if reference.split(".")[0].split(",")[0].lower() in ("yes", "no"):
        return parse_yes_no(answer) == parse_yes_no(reference)
    said, true = (set("".join(c if c.isalnum() else " " for c in text.lower()).split()) for text in (answer, reference))
    kinds = (frozenset(COLORS), _PLACES, frozenset(_NUMBERS))
    asked = [words for words in kinds if true & words]
    if not asked:
        return answer.strip().lower() == reference.strip().lower()
    return all(
        {_NUMBERS.get(w, w) for w in said & words} == {_NUMBERS.get(w, w) for w in true & words} for words in asked
    )
