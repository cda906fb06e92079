"""Group values of HallusionBench: figures, question pairs, easy and hard pairs, and causes of errors.

The rules are those of the owners' `utils.py` (`get_eval_fig`, `get_eval_pair_all`, `get_eval_pair_easy` and `_hard`):
easy and hard are split by the visual input ("2", an altered figure, is hard), and a group with missing answers counts
by the others. `hallusionbench` reads the answers and defines the metrics.
"""

from collections.abc import Iterable, Iterator, Mapping

from sightline.evals.benchmark import DECIDED_BY_QUIRK
from sightline.records.rows import Score

WRONG, RIGHT, UNCLEAR = 0.0, 1.0, 2.0
#: Language hallucination, visual illusion, or one of both.
CAUSES = ("LH", "VI", "Mixed")
#: Prefix of the visual input among a score's groups: 0 is no figure, 1 an original one, 2 an altered one.
INPUT = "input_"
_HARD = INPUT + "2"
_KINDS = ("figure", "pair", "easy", "hard")
GROUP_VALUES = (
    *(f"{kind}_right" for kind in _KINDS),
    "figure_share",
    "figure_inconsistent",
    "figure_wrong",
    *(f"cause_{cause}" for cause in CAUSES),
)


def combine_answers(scores: Iterable[Score]) -> Iterator[Score]:
    """The scores in order; the first of each figure, pair, easy and hard pair carries the value of its group."""
    kept = list(scores)
    members: dict[tuple[str, str], list[Score]] = {}
    originals: dict[str, Score] = {}
    for score in kept:
        for group in _groups(score):
            members.setdefault(group, []).append(score)
        if _is_original(score):
            originals[_pair(score)] = score
    for score in kept:
        values = {**score.values, **_causes(score, originals.get(_pair(score)))}
        groups = [group for group in score.groups if not group.startswith(INPUT)]
        categories = tuple(groups)
        for group in _groups(score):
            if (together := members.pop(group, None)) is not None:
                kind = group[0]
                values |= _group_values(kind, together)
                groups += [kind, *(f"{kind}_{category}" for category in categories)]
        yield score.model_copy(update={"values": values, "groups": tuple(groups)})


def _groups(score: Score) -> list[tuple[str, str]]:
    """The figure, the pair, and the easy or hard pair that an answer belongs to."""
    category, _, figure = _place(score)
    pair = _pair(score)
    found = [("pair", pair), ("hard" if _HARD in score.groups else "easy", pair)]
    if category == "VS" and figure == "0":  # no figure is shown
        return found
    return [("figure", score.sample_id.rpartition("_")[0]), *found]


def _place(score: Score) -> tuple[str, str, str]:
    """(category, set, figure) of an answer, by its sample's id."""
    category, *middle, figure, _ = score.sample_id.split("_")
    return category, "_".join(middle), figure


def _pair(score: Score) -> str:
    category, group, _ = _place(score)
    return f"{category}_{group}_{score.sample_id.rpartition('_')[2]}"


def _is_original(score: Score) -> bool:
    return _place(score)[2] == "0"


def _group_values(kind: str, together: list[Score]) -> dict[str, float | None]:
    """Values of a group by its existing answers, as the owners count; empty if one of them was not graded."""
    answered = [score.values["right"] for score in together if score.values[DECIDED_BY_QUIRK] is not None]
    known = [right for right in answered if right is not None]
    if not known or len(known) < len(answered):
        return {}
    share = sum(known) / len(known)
    values: dict[str, float | None] = {f"{kind}_right": float(share == 1.0)}
    if kind == "figure":
        values["figure_share"] = share
        values["figure_wrong"] = float(share == 0.0)
        values["figure_inconsistent"] = float(0.0 < share < 1.0)
    return values


def _causes(score: Score, original: Score | None) -> dict[str, float | None]:
    """The cause of an answer's error, 1 or 0 for each cause; empty if it or the original one is not graded."""
    verdict = _verdict(score.values)
    before = None if original is None else _verdict(original.values)
    cause: str | None = None
    if _is_original(score):
        cause = _cause_of_original(score, verdict)
    elif original is not None and before is not None:
        cause = _cause_of_variant(score, verdict, original, before)
    if verdict is None or cause is None:
        return {}
    return {f"cause_{name}": float(name == cause) for name in CAUSES}


def _cause_of_original(score: Score, verdict: float | None) -> str:
    if _place(score)[0] == "VD":
        return "" if verdict == RIGHT else "VI"
    return "LH" if verdict == WRONG else ""


def _cause_of_variant(score: Score, verdict: float | None, original: Score, before: float) -> str | None:
    """The cause of an error on an altered figure, by the verdicts on it and the original and by their agreement."""
    if verdict == RIGHT:
        return ""
    category = _place(score)[0]
    if before == UNCLEAR or (category == "VD" and before == WRONG):
        return "VI"
    if verdict == UNCLEAR:
        return "Mixed" if category == "VS" and before == WRONG else "VI"
    if category == "VS" and before == RIGHT and _HARD not in score.groups:
        return "VI"
    same = _same(score.values, original.values)
    if same is None:
        return None
    if category == "VD":
        return "Mixed" if same else "VI"
    if before == WRONG:
        return "LH" if same else "Mixed"
    return "LH" if same else "VI"


def _verdict(values: Mapping[str, float | None]) -> float | None:
    if values["right"] is None:
        return None
    return UNCLEAR if values["unclear"] else values["right"]


def _same(values: Mapping[str, float | None], before: Mapping[str, float | None]) -> bool | None:
    """Whether an answer agrees with the one to the original figure: by a judge's verdict, else by yes and no."""
    if values.get("same") is not None:
        return values["same"] == 1.0
    if values["predicts_yes"] is None or before["predicts_yes"] is None:
        return None
    return values["predicts_yes"] == before["predicts_yes"]
