"""The sampler against Hugging Face's `generate`, sequences without the hidden tokens, itself, and sums by hand."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import choose_tokens, generate, image_token_count, keep_nucleus, stream
from sightline.models.vlm import VLM
from sightline.models.ways.row_by_row import RowByRowWay
from tests.models import plain
from tests.models.tiny import IMAGE_TOKENS


def prefixes(pictures: list[Path]) -> list[Prefix]:
    """One image, two images, none; prompts of different lengths."""
    return [
        Prefix((pictures[0],), "Is there a spoon in the image?"),
        Prefix((pictures[1], pictures[2]), "Which of the two has a small kettle on the table next to the pan?"),
        Prefix((), "How many cows?"),
        Prefix((pictures[3],), "Describe."),
    ]


def texts(generations: Sequence[Generation]) -> list[str]:
    return [generation.text for generation in generations]


@pytest.mark.parametrize("prefill", ["", "In addition, a boat and"])
def test_greedy_equals_generate_of_transformers(vlm: VLM, pictures: list[Path], prefill: str) -> None:
    requests = [GenerateRequest(prefix, prefill) for prefix in prefixes(pictures)]
    # Ordinary tokens also end a turn, so that rows end at different steps.
    vlm.model.generation_config.eos_token_id = [vlm.tokenizer.eos_token_id, *range(8, len(vlm.tokenizer), 14)]
    generations = generate(vlm, requests, Sampling(24), batch_size=3)
    expected = []
    for request in requests:
        text = plain.prompt_text(request.prefix.images, request.prefix.prompt) + (prefill and " " + prefill)
        inputs = plain.inputs_of(vlm.processor, request.prefix.images, text)
        start = inputs["input_ids"].shape[1]
        ids = vlm.model.generate(**inputs, max_new_tokens=24, do_sample=False)[0]
        finished = ids[-1].item() in vlm.model.generation_config.eos_token_id
        before = vlm.tokenizer.decode(ids[:start], skip_special_tokens=True)
        whole = vlm.tokenizer.decode(ids[: len(ids) - finished], skip_special_tokens=True)
        text = whole[len(before) :] if prefill else whole[len(before) :].removeprefix(" ")
        expected.append(Generation(text, len(ids) - start, finished))
    assert generations == expected
    assert len({generation.tokens for generation in generations}) > 1


def test_what_the_scorer_taught_the_sampler_says(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    generations = generate(fluent, [GenerateRequest(lesson.prefix) for lesson in lessons], Sampling(40), batch_size=2)
    assert texts(generations) == [lesson.answers[0] for lesson in lessons]
    assert all(generation.finished for generation in generations)
    assert lessons[0].prefix.prompt == lessons[1].prefix.prompt  # so the pictures made the difference


@pytest.mark.parametrize("cut", [" a boat", " an umbrella are", " on the beach.", " The palm"])
def test_prefill_and_text_make_the_sentence(fluent: VLM, lessons: list[ScoreRequest], cut: str) -> None:
    answer = lessons[1].answers[0]
    end = answer.index(cut) + len(cut)
    for prefill in (answer[:end], answer[: end + 1]):  # with and without the space behind
        (generation,) = generate(fluent, [GenerateRequest(lessons[1].prefix, prefill)], Sampling(40), batch_size=1)
        assert prefill + generation.text == answer
        assert generation.finished


def test_a_finished_prefill_is_followed_by_nothing(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    request = GenerateRequest(lessons[2].prefix, lessons[2].answers[0])
    assert generate(fluent, [request], Sampling(5), batch_size=1) == [Generation("", 1, True)]


def test_text_ends_right_behind_the_first_stop_string(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    requests = [GenerateRequest(lesson.prefix) for lesson in lessons]
    stopped = generate(fluent, requests, Sampling(40, stop=(".", "re ", "spoo")), batch_size=3)
    expected = [
        "A red cup and a blue plate stand on the table.",
        "In addition, a boat and an umbrella are ",
        "No, there ",
    ]
    assert texts(stopped) == expected
    assert all(generation.finished for generation in stopped)
    # Both stop strings come with one token, " table"; the one that ends first in the text wins.
    (one,) = generate(fluent, requests[:1], Sampling(40, stop=("tabl", "tab")), batch_size=1)
    assert one.text == "A red cup and a blue plate stand on the tab"


def test_the_limit_leaves_a_row_unfinished(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    (generation,) = generate(fluent, [GenerateRequest(lessons[2].prefix)], Sampling(3), batch_size=1)
    assert (generation.tokens, generation.finished) == (3, False)
    assert lessons[2].answers[0].startswith(generation.text)
    assert 0 < len(generation.text) < len(lessons[2].answers[0])


def greedy_without(vlm: VLM, prefix: Prefix, hidden: frozenset[int], steps: int, *, close_up: bool = False) -> str:
    """Greedy text from embeddings without the hidden image tokens; positions kept or, wrongly, closed up."""
    inputs = plain.inputs_of(vlm.processor, prefix.images, plain.prompt_text(prefix.images, prefix.prompt))
    ids = inputs["input_ids"][0]
    model = vlm.model.model
    image_places = (ids == vlm.image_token_id).nonzero()[:, 0]
    embeddings = model.get_input_embeddings()(ids)
    embeddings[image_places] = torch.cat(model.get_image_features(inputs["pixel_values"]).pooler_output)
    gone = set(image_places[sorted(hidden)].tolist())
    positions = torch.tensor([place for place in range(len(ids)) if place not in gone])
    embeddings, new = embeddings[positions], []
    for step in range(steps):
        where = torch.arange(len(positions)) if close_up else positions
        states = model.language_model(inputs_embeds=embeddings[None], position_ids=where[None]).last_hidden_state
        new.append(int(vlm.model.lm_head(states[0, -1]).argmax()))
        embeddings = torch.cat([embeddings, model.get_input_embeddings()(torch.tensor(new[-1:]))])
        positions = torch.cat([positions, torch.tensor([len(ids) + step])])
    text: str = vlm.tokenizer.decode([*ids.tolist(), *new], skip_special_tokens=True)
    return text[len(vlm.tokenizer.decode(ids, skip_special_tokens=True)) :].removeprefix(" ")


@torch.no_grad()
def test_hiding_image_tokens_equals_leaving_them_out_with_positions_kept(vlm: VLM, pictures: list[Path]) -> None:
    two = Prefix((pictures[1], pictures[2]), "Which one?")
    masks = [frozenset(), frozenset({0, 3, 4, 8}), frozenset(range(2, 15)), frozenset(range(2 * IMAGE_TOKENS))]
    requests = [GenerateRequest(two, hidden=hidden) for hidden in masks]
    hidden = texts(generate(vlm, requests, Sampling(16), batch_size=4))
    assert hidden == [greedy_without(vlm, two, mask, 16) for mask in masks]
    assert len(set(hidden)) == len(masks)
    for text, mask in zip(hidden[1:], masks[1:], strict=True):
        assert text != greedy_without(vlm, two, mask, 16, close_up=True)


def test_with_all_tokens_hidden_the_pixels_do_not_matter(vlm: VLM, pictures: list[Path]) -> None:
    everything = frozenset(range(IMAGE_TOKENS))
    shown = [GenerateRequest(Prefix((path,), "Describe.")) for path in pictures]
    blind = [replace(request, hidden=everything) for request in shown]
    seeing = generate(vlm, shown, Sampling(12), batch_size=8)
    blinded = generate(vlm, blind, Sampling(12), batch_size=8)
    assert len(set(texts(seeing))) == len(pictures)
    assert len(set(texts(blinded))) == 1


def test_hidden_tokens_must_exist(vlm: VLM, pictures: list[Path]) -> None:
    prefix = Prefix((pictures[0],), "Describe.")
    assert image_token_count(vlm, prefix) == IMAGE_TOKENS
    for hidden in (frozenset({IMAGE_TOKENS}), frozenset({-1})):
        with pytest.raises(InputError, match="not within 0 to 8"):
            generate(vlm, [GenerateRequest(prefix, hidden=hidden)], Sampling(1), batch_size=1)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 0.7)])
def test_first_tokens_follow_the_teacher_forced_distribution(
    vlm: VLM, pictures: list[Path], temperature: float, top_p: float
) -> None:
    prefix, count = Prefix((pictures[0],), "Describe."), 1500
    inputs = plain.inputs_of(vlm.processor, prefix.images, plain.prompt_text(prefix.images, prefix.prompt))
    with torch.no_grad():
        probabilities = torch.softmax(vlm.model(**inputs).logits[0, -1].double() / temperature, -1)
    prompt_ids = inputs["input_ids"][0].tolist()
    before = vlm.tokenizer.decode(prompt_ids, skip_special_tokens=True)
    inside, expected = 0.0, defaultdict[str, float](float)
    for token in probabilities.argsort(descending=True).tolist():
        if inside < top_p:  # several tokens may decode to the same text
            text = vlm.tokenizer.decode([*prompt_ids, token], skip_special_tokens=True)[len(before) :]
            expected[text.removeprefix(" ")] += probabilities[token].item()
        inside += probabilities[token].item()
    requests = [GenerateRequest(prefix, seed=seed) for seed in range(count)]
    got = Counter(texts(generate(vlm, requests, Sampling(1, temperature, top_p), batch_size=250)))
    assert got.keys() <= expected.keys()
    hoped = {text: p / sum(expected.values()) * count for text, p in expected.items()}
    often = [text for text in hoped if hoped[text] >= 5]
    assert len(often) > 20
    observed = [float(got[text]) for text in often]
    wanted = [hoped[text] for text in often]
    observed.append(count - sum(observed))
    wanted.append(count - sum(wanted))
    assert wanted[-1] > 5
    assert chisquare(observed, wanted).pvalue > 0.001


def test_a_sample_is_its_seed_whatever_the_batch(vlm: VLM, pictures: list[Path]) -> None:
    requests = [GenerateRequest(prefix, seed=seed) for seed in (3, 4) for prefix in prefixes(pictures)]
    sampling = Sampling(20, temperature=1.3, top_p=0.95, stop=("b",))
    together = generate(vlm, requests, sampling, batch_size=8)
    alone = [generate(vlm, [request], sampling, batch_size=1)[0] for request in requests]
    backwards = generate(vlm, requests[::-1], sampling, batch_size=3)[::-1]
    assert together == alone == backwards
    assert len({generation.tokens for generation in together}) > 2  # rows left the batch at different steps
    reseeded = generate(vlm, [replace(request, seed=9) for request in requests], sampling, batch_size=8)
    assert all(new != old for new, old in zip(reseeded, together, strict=True))


def test_dropout_is_off_while_sampling_and_on_again_after(vlm: VLM, pictures: list[Path]) -> None:
    vlm = add_lora(vlm, LoraSettings(rank=4, alpha=8.0, dropout=0.5))
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    requests = [GenerateRequest(prefix) for prefix in prefixes(pictures)]
    evaluated = generate(vlm, requests, Sampling(12), batch_size=4)
    vlm.model.train()
    assert generate(vlm, requests, Sampling(12), batch_size=4) == evaluated
    assert vlm.model.training


def test_progress_counts_every_row_once(vlm: VLM, pictures: list[Path]) -> None:
    seen: list[int] = []
    requests = [GenerateRequest(prefix) for prefix in prefixes(pictures)] * 9
    assert len(generate(vlm, requests, Sampling(2), batch_size=2, progress=seen.append)) == 36
    assert sum(seen) == 36
    assert generate(vlm, [], Sampling(2), batch_size=2) == []


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0), Sampling(4, temperature=-1.0), Sampling(4, 1.0, top_p=0.0), Sampling(4, stop=("",)), Sampling(250)],
)
def test_impossible_sampling_is_refused(vlm: VLM, sampling: Sampling) -> None:
    with pytest.raises(InputError):
        generate(vlm, [GenerateRequest(Prefix((), "Describe."))], sampling, batch_size=1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_stream_ends_with_what_generate_gives(vlm: VLM, pictures: list[Path], temperature: float) -> None:
    sampling = Sampling(16, temperature=temperature)
    requests = [GenerateRequest(prefix, seed=number) for number, prefix in enumerate(prefixes(pictures))]
    whole = generate(vlm, requests, sampling, batch_size=4)
    streams = [list(stream(vlm, request, sampling)) for request in requests]
    assert [each[-1] for each in streams] == whole
    for each in streams:
        assert [generation.tokens for generation in each] == list(range(1, each[-1].tokens + 1))
        assert [generation.finished for generation in each[:-1]] == [False] * (len(each) - 1)
        assert all(each[-1].text.startswith(generation.text) for generation in each)


def test_streams_take_turns_and_leave_gradients_on(fluent: VLM, lessons: list[ScoreRequest]) -> None:
    sampling = Sampling(40)
    streams = [stream(fluent, GenerateRequest(lesson.prefix), sampling) for lesson in lessons]
    last: dict[int, str] = {}
    while len(last) < len(lessons):
        for number, words in enumerate(streams):
            generation = next(words, None)
            assert torch.is_grad_enabled()
            if generation is not None and generation.finished:
                last[number] = generation.text
    assert [last[number] for number in range(len(lessons))] == [lesson.answers[0] for lesson in lessons]


def test_rows_by_themselves_give_the_same_text(vlm: VLM, pictures: list[Path]) -> None:
    request = GenerateRequest(prefixes(pictures)[0])
    *_, last = stream(replace(vlm, way=RowByRowWay()), request, Sampling(8))
    assert [last] == generate(vlm, [request], Sampling(8), batch_size=1)


#: Probabilities of four tokens, for choices by hand.
PROBABILITIES = torch.tensor([[0.1, 0.4, 0.3, 0.2]], dtype=torch.float64)


def choose(uniforms: list[float], temperature: float, top_p: float) -> list[int]:
    logits = PROBABILITIES.log().repeat(len(uniforms), 1)
    return choose_tokens(logits, torch.tensor(uniforms), temperature=temperature, top_p=top_p).tolist()


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    assert choose([0.99], 0.0, 1.0) == [1]
    equal = torch.tensor([[0.0, 2.0, 2.0]])
    assert choose_tokens(equal, torch.tensor([0.9]), temperature=0.0, top_p=1.0).tolist() == [1]


def test_the_uniform_number_falls_into_the_tokens_share() -> None:
    assert choose([0.0, 0.099, 0.101, 0.499, 0.501, 0.799, 0.801, 0.9999999], 1.0, 1.0) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_temperature_one_half_squares_the_odds() -> None:
    # Squares 1, 16, 9, 4 of 30: borders at 0.0333, 0.5667, 0.8667.
    assert choose([0.03, 0.04, 0.56, 0.57, 0.86, 0.87], 0.5, 1.0) == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.39, [1]), (0.4, [1]), (0.41, [1, 2]), (0.69, [1, 2]), (0.71, [1, 2, 3]), (0.95, [0, 1, 2, 3])],
)
def test_the_nucleus_is_the_smallest_set_that_holds_top_p(top_p: float, kept: list[int]) -> None:
    nucleus = keep_nucleus(PROBABILITIES, top_p)[0]
    assert nucleus.nonzero()[:, 0].tolist() == kept
    assert torch.equal(nucleus[kept], PROBABILITIES[0, kept])


def test_inside_the_nucleus_the_shares_are_rescaled() -> None:
    # 0.4 and 0.3 remain: the border is at 4/7 = 0.5714.
    assert choose([0.0, 0.57, 0.573, 0.9999], 1.0, 0.5) == [1, 1, 2, 2]
