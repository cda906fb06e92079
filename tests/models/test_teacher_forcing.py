"""Teacher forcing in one packed pass against Transformers' own forward of each row alone, for every family."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from transformers.utils.import_utils import is_torchvision_available

from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.packing import PackRow
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.sampler import choose_tokens
from sightline.models.teacher_forcing import ForcedAnswer, ForcingRequest, forced_logits, forced_tokens
from sightline.models.vlm import VLM
from sightline.models.ways import packed
from sightline.models.ways.row_by_row import RowByRowWay
from tests.models import plain
from tests.models.families import FAMILIES

ANSWERS = ("No, there is no spoon.", "A red cup and a blue plate stand on the table, next to a pan.", "Yes.")
PROMPT = "Is there a spoon in the image?"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def save(name: str) -> Path:
        return FAMILIES[name](tmp_path_factory.mktemp(name))

    return save


def forcings(pictures: list[Path], vlm: VLM | None = None) -> list[ForcingRequest]:
    """Three answers, one per image."""
    is_multimodal = vlm is None or vlm.is_multimodal
    return [
        ForcingRequest(Prefix((picture,) if is_multimodal else (), PROMPT), answer, seed)
        for seed, (picture, answer) in enumerate(zip(pictures, ANSWERS, strict=False))
    ]


def plain_logits(vlm: VLM, one: ForcingRequest) -> Tensor:
    """The logits before every token of " answer</s>", from the model's forward, without code of `sightline.models`."""
    text = plain.prompt_text(one.prefix.images, one.prefix.prompt)
    whole = plain.inputs_of(vlm.processor, one.prefix.images, f"{text} {one.answer}</s>")
    start = plain.inputs_of(vlm.processor, one.prefix.images, text)["input_ids"].shape[1]
    with torch.no_grad():
        logits: Tensor = vlm.model(**whole).logits[0, start - 1 : -1]
    return logits


def writable(vlm: VLM, logits: Tensor, drawn: Tensor) -> list[int]:
    """Replace special tokens by the likeliest other one, by hand."""
    special = set(vlm.tokenizer.all_special_ids)
    best = [next(t for t in row.argsort(descending=True).tolist() if t not in special) for row in logits]
    return [other if token in special else token for token, other in zip(drawn.tolist(), best, strict=True)]


def rows_of(vlm: VLM, items: list[ForcingRequest]) -> list[PackRow]:
    rows = []
    for one in items:
        prefix = encode_prefix(vlm, one.prefix)
        answer = encode_answer(vlm, prefix, one.answer)
        rows.append(PackRow(prefix, (answer.ids[answer.start :],)))
    return rows


def test_logits_equal_the_plain_forward(vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with several chunks that end within an answer."""
    monkeypatch.setattr(packed, "CHUNK", 7)
    items = forcings(pictures)
    with torch.no_grad():
        chunks = list(forced_logits(vlm, rows_of(vlm, items)))
    assert max(map(len, chunks)) == 7 and len(chunks) > 3
    expected = torch.cat([plain_logits(vlm, one) for one in items])
    torch.testing.assert_close(torch.cat(chunks), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not is_torchvision_available(), reason="`make setup` installs torchvision for this")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_its_plain_forward(family: str, saved: Callable[[str], Path], pictures: list[Path]) -> None:
    vlm = load_vlm(saved(family))
    items = forcings(pictures, vlm)
    fast = forced_tokens(vlm, items, temperature=0.0, batch_size=3)
    with torch.no_grad():
        packed = torch.cat(list(forced_logits(vlm, rows_of(vlm, items))))
        unproved = replace(vlm, way=RowByRowWay())
        rows = torch.cat(list(forced_logits(unproved, rows_of(vlm, items))))
    scale = float(rows.abs().max())
    torch.testing.assert_close(packed, rows, rtol=1e-5, atol=2e-5 * scale)
    assert forced_tokens(unproved, items, temperature=0.0, batch_size=3) == fast
    for forced, one in zip(fast, items, strict=True):
        assert forced.ids[-1] == forced.true[-1] and forced.ids[-1] in vlm.end_ids
        assert not vlm.end_ids.intersection(forced.ids[:-1])
        row = rows_of(vlm, [one])[0]
        assert forced.true == row.answers[0]


def test_greedy_is_the_argmax_of_the_plain_forward(vlm: VLM, pictures: list[Path]) -> None:
    for forced, one in zip(
        forced_tokens(vlm, forcings(pictures), temperature=0.0, batch_size=2), forcings(pictures), strict=True
    ):
        logits = plain_logits(vlm, one)[:-1]
        assert list(forced.ids[:-1]) == writable(vlm, logits, logits.argmax(-1))
        assert forced.changed == sum(a != b for a, b in zip(forced.ids, forced.true, strict=True)) > 0


def test_draws_are_those_of_the_plain_forward_by_the_rows_own_stream(vlm: VLM, pictures: list[Path]) -> None:
    for forced, one in zip(
        forced_tokens(vlm, forcings(pictures), temperature=1.3, top_p=0.9, batch_size=3),
        forcings(pictures),
        strict=True,
    ):
        logits = plain_logits(vlm, one)[:-1]
        uniforms = torch.from_numpy(np.random.Generator(np.random.Philox(one.seed)).random(len(forced.true)))[:-1]
        assert list(forced.ids[:-1]) == writable(
            vlm, logits, choose_tokens(logits, uniforms, temperature=1.3, top_p=0.9)
        )


def test_who_shares_the_batch_changes_nothing(vlm: VLM, pictures: list[Path]) -> None:
    items = forcings(pictures)

    def draw(some: list[ForcingRequest], size: int) -> list[ForcedAnswer]:
        return forced_tokens(vlm, some, temperature=1.0, batch_size=size)

    assert draw(items, 3) == draw(items, 1) == draw(items[::-1], 2)[::-1]
    other = [ForcingRequest(one.prefix, one.answer, one.seed + 10) for one in items]
    assert draw(other, 3) != draw(items, 3)
    assert draw([], 2) == []


def test_draws_follow_the_distribution(vlm: VLM, pictures: list[Path]) -> None:
    """The first token of 600 draws at a low temperature against the softmax of the unbatched forward."""
    prefix = Prefix((pictures[0],), PROMPT)
    drawn = forced_tokens(
        vlm, [ForcingRequest(prefix, "No.", seed) for seed in range(600)], temperature=0.2, batch_size=200
    )
    first = np.bincount([forced.ids[0] for forced in drawn], minlength=len(vlm.tokenizer))
    shares = torch.softmax(plain_logits(vlm, ForcingRequest(prefix, "No."))[0].double() / 0.2, -1).numpy()
    common = [token for token in np.flatnonzero(shares * 600 >= 5) if token not in vlm.tokenizer.all_special_ids]
    assert len(common) > 3
    counts = [*first[common], 600 - first[common].sum()]
    expected = [*(shares[common] * 600), 600 * (1 - shares[common].sum())]
    assert chisquare(counts, expected).pvalue > 0.001


def test_a_model_that_knows_the_answer_says_it_again(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    """Text and tokens equal the answer's, including spaces."""
    items = [ForcingRequest(lesson.prefix, lesson.answers[0]) for lesson in lessons]
    for forced, item in zip(forced_tokens(fluent, items, temperature=0.0, batch_size=3), items, strict=True):
        assert forced.text == item.answer
        assert forced.ids == forced.true and forced.changed == 0


def test_a_wrong_word_is_followed_by_the_true_ones(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    """A modified answer: the model predicts the memorized token in its place, given the true tokens before."""
    known = lessons[2]
    spoiled = known.answers[0].replace("there is", "is there")
    (forced,) = forced_tokens(fluent, [ForcingRequest(known.prefix, spoiled)], temperature=0.0, batch_size=1)
    assert forced.text.startswith("No, there")  # the first wrong token is corrected
    assert len(forced.ids) == len(forced.true) and forced.changed > 0


def test_where_the_end_is_likeliest_the_best_other_token_stands(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    """The model predicts the end after the memorized answer, but the forced answer is longer."""
    known = lessons[2]
    (forced,) = forced_tokens(
        fluent, [ForcingRequest(known.prefix, known.answers[0] + " Yes.")], temperature=0.0, batch_size=1
    )
    place = len(rows_of(fluent, [ForcingRequest(known.prefix, known.answers[0])])[0].answers[0]) - 1
    logits = plain_logits(fluent, ForcingRequest(known.prefix, known.answers[0] + " Yes."))
    assert int(logits[place].argmax()) in fluent.end_ids  # else the test is void
    best = [t for t in logits[place].argsort(descending=True).tolist() if t not in fluent.tokenizer.all_special_ids]
    assert forced.ids[place] == best[0]
    assert forced.ids[-1] == forced.true[-1]


def test_an_empty_answer_has_nothing_to_draw(vlm: VLM, pictures: list[Path]) -> None:
    (forced,) = forced_tokens(vlm, [ForcingRequest(Prefix((pictures[0],), PROMPT), "")], temperature=1.0, batch_size=1)
    assert (forced.text, forced.changed) == ("", 0) and forced.ids == forced.true and len(forced.ids) == 1


def test_training_mode_is_put_back_and_no_gradient_is_kept(vlm: VLM, pictures: list[Path]) -> None:
    vlm.model.train()
    seen: list[Any] = []
    handle = vlm.base.get_output_embeddings().register_forward_hook(lambda *passed: seen.append(passed[2]))
    forced_tokens(vlm, forcings(pictures), temperature=0.0, batch_size=3)
    handle.remove()
    assert vlm.model.training and seen and not any(logits.requires_grad for logits in seen)
