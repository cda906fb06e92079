"""k answers of the policy: seeds, length limits, distinct texts, and independence of requests."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.builders.sampled_answers import (
    AnswersConfig,
    Unanswered,
    answer_requests,
    answer_seeds,
    count_tokens,
    distinct_answers,
    rejected_seed,
    sample_answers,
)
from sightline.models.context import RunContext
from sightline.models.encoding import fits
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling, make_prefix
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records import Sample
from tests.builders.builders import make_context
from tests.builders.conftest import ASK, DESCRIBE, LEARNED

CONFIG = AnswersConfig(max_new_tokens=6, batch_size=4)


@pytest.fixture
def context(samples_dir: Path, vlm: VLM, tmp_path: Path) -> RunContext:
    return make_context(samples_dir, tmp_path, vlm)


def test_more_answers_begin_with_the_same_ones() -> None:
    one, other = Sample(id="a", prompt=ASK), Sample(id="b", prompt=ASK)
    seeds = answer_seeds(one, 0, 32)
    assert answer_seeds(one, 0, 5) == seeds[:5]
    assert len(set(seeds)) == 32
    assert not set(seeds) & {rejected_seed(one, 0), *answer_seeds(one, 1, 32), *answer_seeds(other, 0, 32)}
    assert len({rejected_seed(one, 0), rejected_seed(one, 1), rejected_seed(other, 0)}) == 3


def test_answers_are_those_of_each_request_alone(samples: list[Sample], samples_dir: Path, context: RunContext) -> None:
    groups = [
        answer_requests(sample, make_prefix(sample, samples_dir), 0, number)
        for number, sample in enumerate(samples[:4])
    ]
    sampled = sample_answers(context, groups, CONFIG)
    assert [len(answers or ()) for answers in sampled] == [0, 1, 2, 3]
    for requests, answers in zip(groups, sampled, strict=True):
        for request, answer in zip(requests, answers or (), strict=True):
            assert [answer] == generate(context.vlm, [request], Sampling(6, 1.0), batch_size=1)
    texts = [answer.text for answer in sampled[3] or ()]
    assert len(set(texts)) == 3


def test_a_run_may_have_its_own_temperature(samples: list[Sample], samples_dir: Path, context: RunContext) -> None:
    groups = [answer_requests(samples[0], make_prefix(samples[0], samples_dir), 0, 3)]
    (greedy,) = sample_answers(context, groups, CONFIG, temperature=0.0)
    assert len(set(greedy or ())) == 1
    (drawn,) = sample_answers(context, groups, CONFIG)
    assert len(set(drawn or ())) == 3


def test_who_does_not_fit_says_nothing_and_the_others_speak(samples_dir: Path, context: RunContext) -> None:
    """The tiny model has 256 positions."""
    image = (samples_dir / "images/0.png",)
    short, long = GenerateRequest(Prefix(image, ASK)), GenerateRequest(Prefix(image, "cup " * 300))
    sampled = sample_answers(context, [[short], [short, long], [short]], CONFIG)
    assert sampled[1] == Unanswered() and sampled[0] == sampled[2] != []


def test_what_fits_is_what_the_sampler_takes(samples_dir: Path, vlm: VLM) -> None:
    prefix = Prefix((samples_dir / "images/0.png",), ASK)
    most = max(new for new in range(1, 256) if fits(vlm, prefix, "A red cup ", new))
    generate(vlm, [GenerateRequest(prefix, "A red cup ")], Sampling(most), batch_size=1)
    with pytest.raises(Exception, match="exceed the maximum length"):
        generate(vlm, [GenerateRequest(prefix, "A red cup ")], Sampling(most + 1), batch_size=1)
    assert not fits(vlm, prefix, "A red cup. " * 100, 1)


def test_what_the_model_learned_it_says(samples_dir: Path, fluent_dir: Path, tmp_path: Path) -> None:
    fluent = make_context(samples_dir, tmp_path, load_vlm(fluent_dir))
    picture, prompt, answer = LEARNED[0]
    request = GenerateRequest(Prefix((samples_dir / f"images/{picture}.png",), prompt))
    sampled = sample_answers(fluent, [[request]], AnswersConfig(max_new_tokens=60), temperature=0.0)
    assert [generation.text for generation in sampled[0] or ()] == [answer]
    assert count_tokens(sampled[0] or ()) > 10
    assert prompt == DESCRIBE


def test_different_answers() -> None:
    texts = ["A cup.", " ", "A pan.", "A cup. ", "", "A cup."]
    answers = [Generation(text, 3, finished=number != 0) for number, text in enumerate(texts)]
    assert [answer.text for answer in distinct_answers(answers)] == ["A cup. ", "A pan."]
    assert all(answer.finished for answer in distinct_answers(answers))
    assert count_tokens(answers) == 18


@given(st.lists(st.tuples(st.sampled_from(["", " ", "a", "a ", "b", "c"]), st.booleans())))
def test_each_text_stands_once_and_ended_where_it_ever_ended(sampled: list[tuple[str, bool]]) -> None:
    answers = [Generation(text, 1, finished) for text, finished in sampled]
    kept = distinct_answers(answers)
    texts = [answer.text.strip() for answer in kept]
    assert texts == list(dict.fromkeys(answer.text.strip() for answer in answers if answer.text.strip()))
    for answer in kept:
        assert answer.finished == any(a.finished for a in answers if a.text.strip() == answer.text.strip())
