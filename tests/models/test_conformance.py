"""Every family against Transformers' own forward of each row alone: values, gradients, hidden tokens, samples.

`tests.models.families` makes the tiny models; a family that passes here is verified for packing.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sightline.models.adapters import LoraSettings, add_lora, merge_and_save, reference_mode, save_adapter
from sightline.models.compat import set_activation_checkpointing
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.packing import Continuation, PackRow, share_prefixes
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import choose_tokens, generate, image_token_count
from sightline.models.scorer import answer_logps, answer_states, score_rows
from sightline.models.unbatched import unbatched_inputs, unbatched_logps, unbatched_states
from sightline.models.vlm import VLM
from tests.models.families import FAMILIES, family_params
from tests.models.hiding import hiding_inputs

ANSWERS = (
    "No, there is no spoon.",
    "Yes.",
    "A red cup and a blue plate stand on the table, next to a pan.",
    "There are two cups and a plate.",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's tiny model, saved at the first call."""

    @functools.cache
    def save(name: str) -> Path:
        return FAMILIES[name](tmp_path_factory.mktemp(name))

    return save


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise images of different sizes and aspect ratios."""
    directory = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(7)
    paths = []
    for number, (height, width) in enumerate([(56, 56), (40, 90), (100, 44), (56, 56)]):
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        path = directory / f"{number}.png"
        Image.fromarray(pixels.numpy()).save(path)
        paths.append(path)
    return paths


@pytest.fixture(params=family_params())
def vlm(request: pytest.FixtureRequest, saved: Callable[[str], Path]) -> VLM:
    return load_vlm(saved(request.param))


@pytest.fixture(params=family_params(seeing=True))
def seeing(request: pytest.FixtureRequest, saved: Callable[[str], Path]) -> VLM:
    return load_vlm(saved(request.param))


def batch_of(vlm: VLM, photos: Sequence[Path], count: int) -> list[ScoreRequest]:
    """One image, two of different sizes, none; answers of different lengths."""
    images: list[tuple[Path, ...]] = (
        [(photos[0],), (photos[1], photos[2]), (photos[2],), ()] if vlm.is_multimodal else [(), ()]
    )
    if vlm.base.config.model_type == "paligemma":
        images.pop()  # its processor requires an image
    prompts = ("Is there a spoon in the image?", "Which differs?", "How many cows are there?", "Describe.")
    turned = [ANSWERS[number:] + ANSWERS[:number] for number in range(4)]
    return [
        ScoreRequest(Prefix(these, prompt), answers[:count])
        for these, prompt, answers in zip(images, prompts, turned, strict=False)
    ]


def rows_of(vlm: VLM, items: Sequence[ScoreRequest]) -> Iterator[PackRow]:
    for item in items:
        prefix = encode_prefix(vlm, item.prefix)
        rows = [encode_answer(vlm, prefix, answer) for answer in item.answers]
        yield PackRow(prefix, tuple(row.ids[row.start :] for row in rows))


def plain_sums(vlm: VLM, items: Sequence[ScoreRequest]) -> Tensor:
    """Log-probs of whole answers, each from a forward of its row alone."""
    sums = [
        unbatched_logps(vlm, [PackRow(row.prefix, (answer,))]).sum()
        for row in rows_of(vlm, items)
        for answer in row.answers
    ]
    return torch.stack(sums).view(len(items), -1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_log_probs_equal_the_plain_forward(vlm: VLM, photos: list[Path], count: int) -> None:
    items = batch_of(vlm, photos, count)
    assert vlm.way.name == "packed"
    with torch.no_grad():
        scored = answer_logps(vlm, items)
        expected = unbatched_logps(vlm, list(rows_of(vlm, items)))
    torch.testing.assert_close(scored.values[scored.mask], expected, rtol=1e-5, atol=2e-5)


def test_who_shares_the_batch_changes_nothing(vlm: VLM, photos: list[Path]) -> None:
    items = batch_of(vlm, photos, 2)
    with torch.no_grad():
        together = answer_logps(vlm, items).sums()
        alone = torch.cat([answer_logps(vlm, [item]).sums() for item in items])
        backwards = answer_logps(vlm, items[::-1]).sums().flip(0)
        swapped = answer_logps(vlm, [ScoreRequest(item.prefix, item.answers[::-1]) for item in items]).sums().flip(1)
    for other in (alone, backwards, swapped):
        torch.testing.assert_close(together, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("how", ["lora", "lora and projector", "full", "checkpointing"])
def test_gradients_of_dpo_equal_the_plain_ones(vlm: VLM, photos: list[Path], how: str) -> None:
    if how == "lora and projector" and vlm.family.projector is None:
        pytest.skip("a model without eyes has no projector")
    if how == "full":
        vlm.model.requires_grad_(True)
    else:
        vlm = add_lora(vlm, LoraSettings(rank=4, alpha=8.0, train_projector=how == "lora and projector"))
        perturb_adapter(vlm)
    if how == "checkpointing":
        set_activation_checkpointing(vlm.base, enabled=True)
        vlm.model.train()
    items = batch_of(vlm, photos, 2)
    loss, gradients = dpo_gradients(vlm, answer_logps(vlm, items).sums())
    if how == "checkpointing":
        set_activation_checkpointing(vlm.base, enabled=False)
        vlm.model.eval()
    expected_loss, expected = dpo_gradients(vlm, plain_sums(vlm, items))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() == expected.keys()
    assert gradients
    for name, gradient in gradients.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4 * scale + 1e-7)


def test_hidden_states_and_their_gradients_equal_the_plain_ones(vlm: VLM, photos: list[Path]) -> None:
    """The inputs of a scalar head: the states before each answer token, and of each answer's last token."""
    vlm = add_lora(vlm, LoraSettings(rank=4, alpha=8.0))
    perturb_adapter(vlm)
    rows = list(rows_of(vlm, batch_of(vlm, photos, 4)))
    direction = torch.randn(vlm.base.config.get_text_config().hidden_size, generator=torch.Generator().manual_seed(2))
    states = answer_states(vlm, rows, logps=True)
    assert states.logps is not None
    found = (states.before, states.last, states.logps)
    numbers = []
    for before, last, logps in (found, unbatched_states(vlm, rows)):
        vlm.model.zero_grad(set_to_none=True)
        ((before @ direction).square().sum() + (last @ direction).square().sum() + logps.sum()).backward()
        numbers.append({name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None})
    with torch.no_grad():
        for one, other in zip(found, unbatched_states(vlm, rows), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=5e-5)
    assert numbers[0].keys() == numbers[1].keys() and numbers[0]
    for name, gradient in numbers[0].items():
        scale = numbers[1][name].abs().max().item()
        torch.testing.assert_close(gradient, numbers[1][name], rtol=1e-4, atol=1e-4 * scale + 1e-7)


def perturb_adapter(vlm: VLM) -> None:
    """Change a new adapter, which is the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in vlm.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


def dpo_gradients(vlm: VLM, sums: Tensor) -> tuple[float, dict[str, Tensor]]:
    vlm.model.zero_grad(set_to_none=True)
    loss = -functional.logsigmoid(0.1 * (sums[:, 0] - sums[:, 1])).mean()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None}


def test_hiding_image_tokens_equals_masking_or_leaving_them_out(seeing: VLM, photos: list[Path]) -> None:
    prefix = Prefix((photos[1],), "Describe.")
    count = image_token_count(seeing, prefix)
    hidden = frozenset(range(0, count, 2)) | {count - 1}
    (row,) = rows_of(seeing, [ScoreRequest(prefix, ANSWERS[:1])])
    row = PackRow(row.prefix, row.answers, hidden)
    inputs = hiding_inputs(seeing, row)
    with torch.no_grad():
        logits = seeing.model(**inputs, use_cache=False).logits[0, -len(row.answers[0]) - 1 : -1]
        expected = -functional.cross_entropy(logits, torch.tensor(row.answers[0]), reduction="none")
        sampled = next_token_logits(seeing, prefix, hidden)
        unhidden = unbatched_logps(seeing, [PackRow(row.prefix, row.answers)])
        hidden_logps = score_rows(seeing, [row])
    torch.testing.assert_close(hidden_logps, expected, rtol=1e-5, atol=2e-5)
    assert (hidden_logps - unhidden).abs().max() > 1e-3
    assert sampled


def next_token_logits(vlm: VLM, prefix: Prefix, hidden: frozenset[int]) -> str:
    return generate(vlm, [GenerateRequest(prefix, hidden=hidden)], Sampling(4), batch_size=1)[0].text + "."


def test_with_all_hidden_the_pixels_are_gone(seeing: VLM, photos: list[Path]) -> None:
    def text(photo: Path, hide: bool) -> str:
        prefix = Prefix((photo,), "Describe.")
        hidden = frozenset(range(image_token_count(seeing, prefix))) if hide else frozenset[int]()
        return generate(seeing, [GenerateRequest(prefix, hidden=hidden, seed=3)], Sampling(24, 1.0), batch_size=1)[
            0
        ].text

    assert text(photos[0], True) == text(photos[3], True)
    assert text(photos[0], False) != text(photos[3], False)
    with torch.no_grad():
        shown, other = (scored_with(seeing, Prefix((photo,), "Describe."), hide=False) for photo in photos[::3])
        blind, blind_other = (scored_with(seeing, Prefix((photo,), "Describe."), hide=True) for photo in photos[::3])
    torch.testing.assert_close(blind, blind_other, rtol=1e-6, atol=1e-6)
    assert (shown - other).abs().max() > 1e-3


def scored_with(vlm: VLM, prefix: Prefix, *, hide: bool) -> Tensor:
    (row,) = rows_of(vlm, [ScoreRequest(prefix, ANSWERS[:2])])
    hidden = frozenset(range(image_token_count(vlm, prefix))) if hide else frozenset[int]()
    return score_rows(vlm, [PackRow(row.prefix, row.answers, hidden)])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_follows_the_teacher_forced_distribution(vlm: VLM, photos: list[Path], temperature: float) -> None:
    """Every token is the choice of an unbatched forward for the row's own draw, with and without hidden tokens."""
    prefix = Prefix((photos[0],) if vlm.is_multimodal else (), "Describe.")
    hidden = frozenset({0, 1}) if vlm.is_multimodal else frozenset[int]()
    requests = [
        GenerateRequest(prefix),
        GenerateRequest(prefix, hidden=hidden),
        GenerateRequest(prefix, prefill="A red cup"),
        GenerateRequest(prefix),
    ]
    sampling = Sampling(12, temperature, 0.9)
    generations = generate(vlm, requests, sampling, batch_size=4)
    assert generations[0] == generations[3]
    for request, generation in zip(requests, generations, strict=True):
        alone = generate(vlm, [request], sampling, batch_size=1)[0]
        assert alone == generation
        expected = plain_sample(vlm, request, sampling)
        assert generation.text.strip() == expected.strip()


QUESTIONS = ("Is there a spoon in the image?", "Is there a cup?", "How many cows are there?", "Is there a spoon?")


def questions_on(vlm: VLM, photos: Sequence[Path]) -> list[GenerateRequest]:
    """Four questions about the same two images, one of them three times: alone, with a prefill, with another seed."""
    images = tuple(photos[1:3]) if vlm.is_multimodal else ()
    questions = [GenerateRequest(Prefix(images, question), seed=seed) for seed, question in enumerate(QUESTIONS)]
    return [
        *questions,
        GenerateRequest(questions[0].prefix, prefill="A red cup", seed=7),
        GenerateRequest(questions[0].prefix, seed=8),
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_questions_on_a_picture_are_answered_as_if_alone(vlm: VLM, photos: list[Path], temperature: float) -> None:
    requests = questions_on(vlm, photos)
    sampling = Sampling(10, temperature, 0.9)
    together = generate(vlm, requests, sampling, batch_size=8)
    assert together == [generate(vlm, [request], sampling, batch_size=1)[0] for request in requests]
    assert together == generate(vlm, requests[::-1], sampling, batch_size=4)[::-1]
    assert len({generation.text for generation in together}) > 1


def test_what_a_question_shares_changes_no_log_prob(vlm: VLM, photos: list[Path]) -> None:
    """Rows branch from the longest one, except in families whose prompts have bidirectional attention."""
    prefixes = [encode_prefix(vlm, request.prefix) for request in questions_on(vlm, photos)]
    answers = [(40, 41, 42), (42, 41), (43,), (42, 43), (44,), (45, 44)]
    shared = share_prefixes(
        vlm, [Continuation(p, prefill, frozenset()) for p, prefill in zip(prefixes, answers, strict=True)]
    )
    seeing_both_ways = vlm.base.config.model_type == "paligemma"
    assert len(shared) == (4 if seeing_both_ways or not vlm.is_multimodal else 1)
    with torch.no_grad():
        for each in shared:
            scored = iter(score_rows(vlm, [each.row]).split([len(answer) for answer in each.row.answers]))
            for (number, *_), logps in zip(each.members, scored, strict=True):
                prefix, whole = prefixes[number], (*prefixes[number].ids, *answers[number])
                own = whole[len(whole) - len(logps) :]
                logits = vlm.model(**unbatched_inputs(vlm, prefix, answers[number]), use_cache=False).logits[0]
                places = torch.arange(len(whole) - len(own) - 1, len(whole) - 1)
                expected = -functional.cross_entropy(logits[places], torch.tensor(own).long(), reduction="none")
                torch.testing.assert_close(logps, expected, rtol=1e-5, atol=2e-5)


def plain_sample(vlm: VLM, request: GenerateRequest, sampling: Sampling) -> str:
    """Sample with a whole forward for every token; `choose_tokens` is tested separately."""
    rng = np.random.Generator(np.random.Philox(request.seed))
    encoded = encode_prefix(vlm, request.prefix)
    from sightline.models.encoding import encode_prefill

    ids = list(encode_prefill(vlm, encoded, request.prefill).ids[len(encoded.ids) :])
    start = len(ids)
    with torch.no_grad():
        while len(ids) - start < sampling.max_new_tokens:
            row = PackRow(
                encoded, ((*ids, min(vlm.end_ids)),), request.hidden
            )  # the last id is a placeholder that nothing sees
            inputs = hiding_inputs(vlm, row)
            logits = vlm.model(**inputs, use_cache=False).logits[:1, -2].float()
            draw = torch.tensor([rng.random()], dtype=torch.float64)
            token = int(choose_tokens(logits, draw, temperature=sampling.temperature, top_p=sampling.top_p))
            if token in vlm.end_ids:
                break
            ids.append(token)
    before = vlm.tokenizer.decode(encoded.ids + tuple(ids[:start]), skip_special_tokens=True)
    whole: str = vlm.tokenizer.decode(encoded.ids + tuple(ids), skip_special_tokens=True)
    return whole[len(before) :]


def test_a_row_too_long_is_refused_whole(seeing: VLM, photos: list[Path]) -> None:
    from sightline.models.encoding import RowTooLong

    seeing.base.config.get_text_config().max_position_embeddings = 30
    with pytest.raises(RowTooLong):
        answer_logps(seeing, [ScoreRequest(Prefix((photos[0],), "Describe."), (" ".join(ANSWERS),))])


def test_save_load_and_merge_keep_the_numbers(vlm: VLM, photos: list[Path], tmp_path: Path) -> None:
    trained = add_lora(vlm, LoraSettings(rank=4, alpha=8.0))
    perturb_adapter(trained)
    items = batch_of(vlm, photos, 2)
    with torch.no_grad():
        expected = answer_logps(trained, items).sums()
        with reference_mode(trained):
            assert not torch.allclose(answer_logps(trained, items).sums(), expected)
        save_adapter(trained, tmp_path / "adapter")
        merge_and_save(trained, tmp_path / "merged")
        loaded = answer_logps(load_vlm(vlm.path, adapter=tmp_path / "adapter"), items).sums()
        merged = answer_logps(load_vlm(tmp_path / "merged"), items).sums()
    torch.testing.assert_close(loaded, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)
