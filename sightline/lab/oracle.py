"""The lab's ground truth as a judge (`judges.judge`); `oracle_writer` uses it as a writer."""

from sightline.evals.yes_no import parse_yes_no
from sightline.judges.judge import Verdict
from sightline.lab.parser import Claims, Judgement, judge, parse_claims
from sightline.lab.questions import CAPTION_PROMPTS, DESCRIBE_PROMPTS, question_score
from sightline.lab.words import COLORS, COUNT_WORDS
from sightline.lab.world import Scene
from sightline.models.requests import JudgeInput
from sightline.recipes.curation.conversations import QUESTION_REQUEST

MISTAKE = 0.1  # penalty per mistake in the answer to a question
_FACTS = 3  # per kind in a scene: presence, color, number
_PLACES = frozenset({"left", "right", "top", "bottom", "above", "below"})
_NUMBERS = {name: number for number, name in COUNT_WORDS.items()} | {str(number): number for number in COUNT_WORDS}


def score(item: JudgeInput) -> Verdict:
    """Score an answer's correctness and completeness; 1 is the whole truth, and omitting a true fact never helps.

    A description: the F1 of the facts it states, as `facts_f1`. A question's answer: 1 if it agrees with the
    reference on the question, else 0, minus 0.1 per mistake; a wrong answer is itself a mistake. The
    aspects are `right` (the share of the scene's kinds that a description names; whether an answer agrees) and
    `mistakes` (their number, negative).
    """
    if "objects" not in item.truth:
        return Verdict(None, note="the sample has no truth of the lab")
    scene = Scene.from_truth(item.truth)
    if item.prefix.prompt == QUESTION_REQUEST:
        return Verdict(question_score(item.answer, scene))
    claims = parse_claims(item.answer)
    verdict = judge(claims, scene)
    wrong = float(mistakes(verdict))
    if is_description(item.prefix.prompt):
        right = len(verdict.mentioned) / len(scene.kinds)
        return Verdict(facts_f1(claims, verdict, scene), {"mistakes": -wrong, "right": right})
    if item.reference is None:
        return Verdict(None, note="a question without a reference answer")
    right = float(_agree(item.answer, item.reference))
    wrong += 1 - right
    return Verdict(right - MISTAKE * wrong, {"mistakes": -wrong, "right": right})


def facts_f1(claims: Claims, verdict: Judgement, scene: Scene) -> float:
    """F1 of the facts that a text states against those of the scene, from 0 to 1.

    The scene has three facts per kind: presence, color, number. Repeated facts count once; all facts of an absent kind
    are false, and so is each wrong relation. Stating a further fact raises the expected score if its probability of
    being right exceeds half the score, which is at most one half.
    """
    stated: set[tuple[str, str]] = set()
    for mention in claims.mentions:
        if not mention.negated:
            stated |= {(mention.kind, "there")}
            stated |= {(mention.kind, "color")} if mention.color is not None else set()
            stated |= {(mention.kind, "number")} if mention.count is not None else set()
    false = {fact for fact in stated if fact[0] in {mention.kind for mention in verdict.hallucinated}}
    false |= {(mention.kind, "color") for mention in verdict.wrong_colors}
    false |= {(mention.kind, "number") for mention in verdict.wrong_counts}
    true = len(stated - false)
    return 2 * true / (len(stated) + len(verdict.wrong_relations) + _FACTS * len(scene.kinds))


def is_description(prompt: str) -> bool:
    """Whether the prompt asks for a description, not a specific question."""
    return prompt in (*DESCRIBE_PROMPTS, *CAPTION_PROMPTS)


def mistakes(verdict: Judgement) -> int:
    """The number of mistakes in a text."""
    return sum(
        len(found)
        for found in (verdict.hallucinated, verdict.wrong_colors, verdict.wrong_counts, verdict.wrong_relations)
    )


def _agree(answer: str, reference: str) -> bool:
    """Whether an answer agrees with the reference: yes or no, else its numbers, colors and places."""
    if reference.split(".")[0].split(",")[0].lower() in ("yes", "no"):
        return parse_yes_no(answer) == parse_yes_no(reference)
    given, true = (
        set("".join(c if c.isalnum() else " " for c in text.lower()).split()) for text in (answer, reference)
    )
    kinds = (frozenset(COLORS), _PLACES, frozenset(_NUMBERS))
    relevant = [words for words in kinds if true & words]
    if not relevant:
        return answer.strip().lower() == reference.strip().lower()
    return all(
        {_NUMBERS.get(w, w) for w in given & words} == {_NUMBERS.get(w, w) for w in true & words} for words in relevant
    )
