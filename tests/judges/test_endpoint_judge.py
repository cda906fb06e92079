"""The endpoint judge: both orders, the parse rule, its prompts, its identity, and invalid replies."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sightline.endpoint import client
from sightline.judges.endpoint import COMPARE, GRADE, EndpointJudgeConfig, read_better, read_grades
from sightline.judges.judge import Comparer, ComparisonInput, Judge, Preference, prefer
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput, Prefix
from sightline.records.rows import Turn
from tests.judges.local_server import Act, Body, pictures_of, say, serving, status, text_of

pytest.importorskip("openai")
TOOLS = RunContext(Path(), Path(), 0)
MakeImage = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)


def open_judge(url: str, server: dict[str, Any] | None = None, **settings: Any) -> Judge:
    section = {"base_url": url, "model": "m", "retries": 1, "timeout": 5, **(server or {})}
    return EndpointJudgeConfig.model_validate({"name": "endpoint", "server": section, **settings}).open(TOOLS)


def make_input(answer: str, *images: Path, prompt: str = "Which color?", **more: Any) -> JudgeInput:
    return JudgeInput(Prefix(images, prompt), answer, **more)


def answers_of(body: Body) -> list[str]:
    """The answers that a judge is shown, in the order shown."""
    return re.findall(r"(?m)^(?:Answer|Response \d): (.*)$", text_of(body))


def sees_colors(body: Body, number: int) -> Act:
    """A judge with eyes: the answer that names the color of the picture is right."""
    pixel = pictures_of(body)[0].convert("RGB").getpixel((0, 0))
    color = {(255, 0, 0): "red", (0, 0, 255): "blue"}[pixel]  # type: ignore[index]
    right = [color in answer for answer in answers_of(body)]
    if len(right) == 1:
        return say(f"It is {color}.\n\nScore: {9 if right[0] else 2}")
    return say(f"It is {color}.\nBetter: {'tie' if right[0] == right[1] else 1 if right[0] else 2}")


# --- comparing --------------------------------------------------------------------------------------------------------


def test_the_answer_that_fits_the_picture_is_better_wherever_it_stands(make_image: MakeImage) -> None:
    red, blue = make_image("red.png", color="red"), make_image("blue.png", color="blue")
    pairs = [
        ComparisonInput(make_input("It is red.", red), make_input("It is blue.", red)),
        ComparisonInput(make_input("It is red.", blue), make_input("It is blue.", blue)),
        ComparisonInput(make_input("Something red.", red), make_input("It is red.", red)),
    ]
    with serving(sees_colors) as (url, heard):
        judge = open_judge(url)
        assert isinstance(judge, Comparer)
        assert prefer(judge, pairs) == ["first", "second", "tie"]
        assert prefer(judge, [ComparisonInput(pair.second, pair.first) for pair in pairs]) == ["second", "first", "tie"]
    assert len(heard.bodies) == 6  # both orders of three; the swapped ones were known


REPLIES: dict[str, Act] = {
    "1": say("Better: 1"),
    "2": say("Better: 2"),
    "tie": say("Better: tie"),
    "rubbish": say("I like both."),
    "empty": say(""),
    "500": status(500, {}),
}


@pytest.mark.parametrize(
    ("straight", "swapped", "verdict"),
    [
        ("1", "2", "first"),
        ("2", "1", "second"),
        ("tie", "tie", "tie"),
        ("1", "1", "tie"),  # a judge that looks at the place alone
        ("2", "2", "tie"),
        ("1", "tie", "tie"),
        ("tie", "1", "tie"),
        ("1", "rubbish", None),
        ("empty", "2", None),
        ("500", "1", None),
        ("rubbish", "rubbish", None),
    ],
)
def test_both_orders_must_agree(straight: str, swapped: str, verdict: Preference | None) -> None:
    def script(body: Body, number: int) -> Act:
        return REPLIES[straight if answers_of(body) == ["a", "b"] else swapped]

    with serving(script) as (url, _):
        assert prefer(open_judge(url), [ComparisonInput(make_input("a"), make_input("b"))]) == [verdict]


def test_a_comparing_judge_gives_grades_where_scores_are_asked(make_image: MakeImage) -> None:
    red = make_image(color="red")
    with serving(sees_colors) as (url, _):
        verdicts = open_judge(url).score([make_input("It is red.", red), make_input("It is blue.", red)])
    assert [verdict.score for verdict in verdicts] == [9, 2]


# --- grading ----------------------------------------------------------------------------------------------------------


def test_grades_come_by_the_picture_and_decide_preferences(make_image: MakeImage) -> None:
    red = make_image(color="red")
    with serving(sees_colors) as (url, _):
        judge = open_judge(url, mode="grade")
        assert not isinstance(judge, Comparer)
        assert prefer(judge, [ComparisonInput(make_input("It is blue.", red), make_input("It is red.", red))]) == [
            "second"
        ]
        (verdict,) = judge.score([make_input("It is red.", red)])
    assert verdict.score == 9 and verdict.aspects == {} and verdict.note == "It is red.\n\nScore: 9"


def test_aspects_are_rated_each_and_their_mean_is_the_score() -> None:
    with serving(lambda body, number: say("Well.\nFaithfulness: 5\nHelpfulness: 3\nBrevity: 4")) as (url, heard):
        aspects = ["helpfulness", "faithfulness", "Brevity: are {all} words needed"]
        (verdict,) = open_judge(url, mode="grade", aspects=aspects).score([make_input("It is red.")])
    assert verdict.aspects == {"helpfulness": 3, "faithfulness": 5, "brevity": 4} and verdict.score == 4
    (prompt,) = heard.texts()
    assert "- Helpfulness: does it answer" in prompt and "- Brevity: are {all} words needed?" in prompt
    assert prompt.endswith(
        "Helpfulness: N\nFaithfulness: N\nBrevity: N\n\nQuestion: Which color?\n\nAnswer: It is red."
    )


@pytest.mark.parametrize(
    "act", [REPLIES["rubbish"], REPLIES["empty"], REPLIES["500"], say("Score: 11"), say("Score: 1", finish="length")]
)
def test_a_failed_call_is_unscored_and_the_note_says_why(act: Act) -> None:
    def script(body: Body, number: int) -> Act:
        return act if answers_of(body) == ["bad"] else say("Score: 5")

    with serving(script) as (url, _):
        good, bad = open_judge(url, mode="grade").score([make_input("good"), make_input("bad")])
    assert good.score == 5
    assert bad.score is None and bad.aspects == {} and bad.note


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["grade", "compare"])
@pytest.mark.parametrize("shown", [True, False])
def test_the_reference_is_shown_where_asked_for(mode: str, shown: bool) -> None:
    pair = ComparisonInput(make_input("a", reference="It is teal."), make_input("b", reference="It is teal."))
    with serving(lambda body, number: say("Score: 1")) as (url, heard):
        prefer(open_judge(url, mode=mode, show_reference=shown), [pair])
        assert {"Reference answer, which is right: It is teal." in prompt for prompt in heard.texts()} == {shown}
        prefer(open_judge(url, mode=mode, show_reference=True), [ComparisonInput(make_input("a"), make_input("b"))])
        assert "Reference" not in heard.texts()[-1]


def test_earlier_turns_and_places_of_pictures_are_told(make_image: MakeImage) -> None:
    one, two = make_image("one.png", color="red"), make_image("two.png", color="blue")
    history = (Turn(role="user", text="Look at <image>."), Turn(role="assistant", text="A red one."))
    prefix = Prefix((one, two), "And <image>?", history)
    with serving(lambda body, number: say("Score: 1")) as (url, heard):
        open_judge(url, mode="grade").score(
            [JudgeInput(prefix, "Blue."), make_input("x", one, prompt="<image>\nWhat?")]
        )
    by_answer = {answers_of(body)[0]: body for body in heard.bodies}
    conversation = "User: Look at [picture 1].\nAssistant: A red one.\nUser: And [picture 2]?"
    assert f"Question: {conversation}\n\nAnswer: Blue." in text_of(by_answer["Blue."])
    assert len(pictures_of(by_answer["Blue."])) == 2
    assert "Question: What?\n\nAnswer: x" in text_of(by_answer["x"])


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_identity_hangs_on_what_decides_verdicts_alone() -> None:
    def identity(server: dict[str, Any] | None = None, url: str = "http://a/v1", **settings: Any) -> str:
        return open_judge(url, server, **settings).identity

    same = [
        identity(),
        identity(url="http://b/v1"),
        identity({"timeout": 9, "retries": 0, "concurrency": 2, "cache": False, "limit_name": "max_completion_tokens"}),
    ]
    other = [
        identity(mode="grade"),
        identity(show_reference=True),
        identity(aspects=["ethics"]),
        identity(aspects=["ethics: is it kind"]),
        *(identity({name: value}) for name, value in (("model", "n"), ("temperature", 1), ("seed", 1))),
        identity({"max_tokens": 5}),
        identity({"max_side": 99}),
    ]
    assert len(set(same)) == 1 and len({same[0], *other}) == 1 + len(other)


def test_the_identity_hangs_on_prompts_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {mode: open_judge("http://a/v1", mode=mode).identity for mode in ("compare", "grade")}
    for name, value in (("COMPARE", COMPARE + " "), ("GRADE", GRADE + " "), ("PARSE_RULE", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(f"sightline.judges.endpoint.{name}", value)
            changed = {mode: open_judge("http://a/v1", mode=mode).identity for mode in before}
        assert changed["compare"] != before["compare"]
        assert (changed["grade"] == before["grade"]) == (name == "COMPARE")


@pytest.mark.parametrize("aspects", [["faithfullness"], ["ethics", "Ethics: again"], ["a-b: c"], ["kind:"], [""]])
def test_aspects_of_no_sense_are_refused(aspects: list[str]) -> None:
    with pytest.raises(ValidationError, match="aspect"):
        open_judge("http://a/v1", aspects=aspects)


# --- the parse rule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 7", 7),
        ("Because.\n\n**Score: 7**\n", 7),
        ("**Score:** 7.", 7),
        ("score = 7.5", 7.5),
        ("Score: 10/10", 10),
        ("Score: 7/5", None),
        ("Score: 0", None),
        ("Score: 11", None),
        ("Score: 7 or 8", None),
        ("Score: -7", None),
        ("Score: N", None),
        ("Score: 7\nBut it could be less.", None),
        ("My Score: 7", None),
        ("7", None),
        ("", None),
    ],
)
def test_a_grade_is_read_from_the_last_line_alone(reply: str, score: float | None) -> None:
    assert read_grades(reply, ()) == (None if score is None else {"score": score})


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Ethics: 5\nHelpfulness: 2", {"helpfulness": 2, "ethics": 5}),
        ("- **Helpfulness**: 2/5\n\n- Ethics: 5", {"helpfulness": 2, "ethics": 5}),
        ("Helpfulness: 2", None),
        ("Helpfulness: 2\nHelpfulness: 3", None),
        ("Helpfulness: 2\nEthics: 6", None),
        ("Helpfulness: 2\nand\nEthics: 5", None),
    ],
)
def test_ratings_are_read_from_the_last_lines(reply: str, found: dict[str, float] | None) -> None:
    assert read_grades(reply, ("helpfulness", "ethics")) == found


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Better: 1", "first"),
        ("It is.\n**Better: 2**", "second"),
        ("better: Tie.", "tie"),
        ("Better: Response 2", "second"),
        ("Better: 3", None),
        ("Better: 12", None),
        ("Better: 1 or 2", None),
        ("Better: 1\nNo, wait.", None),
        ("Response 1 is better", None),
        ("", None),
    ],
)
def test_a_preference_is_read_from_the_last_line_alone(reply: str, verdict: Preference | None) -> None:
    assert read_better(reply) == verdict


@given(st.text(), st.integers(1, 10))
def test_whatever_was_said_before_changes_nothing(before: str, score: int) -> None:
    assert read_grades(f"{before}\nScore: {score}", ()) == {"score": score}
    assert read_better(f"{before}\nBetter: tie\n \n") == "tie"


@given(st.text(alphabet=st.characters(exclude_characters=":=")))
def test_without_the_line_there_is_no_verdict(reply: str) -> None:
    assert read_grades(reply, ()) is None and read_better(reply) is None
