"""BDHS, attention variant, against Algorithm 1 (arXiv 2407.02477): masks, cuts, contexts, tries, and what is joined.

The models are tiny and the pictures real. What a model that knows its answers by heart says proves contexts and joints;
what a random one says proves that nothing but (sample, seed) decides a row.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from sightline.builders.bdhs import (
    BDHSConfig,
    _Attempt,
    _BDHSDraft,
    _drafts,
    _join,
    build_bdhs,
    cut_sentence,
    draw_hidden_tokens,
)
from sightline.builders.builder import sample_rng
from sightline.config import load_config
from sightline.data.texts import count_words, starts_with_yes_no
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records import Pair, Sample
from tests.builders.conftest import DESCRIBE, LEARNED, make_samples, save_scenes
from tests.models.tiny import IMAGE_TOKENS

CONFIG = BDHSConfig(rho=0.8, tries=3, threshold=0.97, max_new_tokens=10, batch_size=8, wave=4)
NEVER_BELOW = 1e-9  # a threshold that no similarity is below, so that every try is tried again


def make_context(folder: Path, vlm: VLM, seed: int = 0) -> RunContext:
    return RunContext(folder, folder / "views", seed, vlm)


def drafts(sample: Sample, folder: Path, vlm: VLM, number: int = 1, seed: int = 0) -> list[_BDHSDraft]:
    return _drafts(_Attempt(sample, number), make_context(folder, vlm, seed), CONFIG)


def built(samples: Iterable[Sample], folder: Path, vlm: VLM, config: BDHSConfig, seed: int = 0) -> dict[str, Pair]:
    return {
        pair.id: pair
        for result in build_bdhs(samples, make_context(folder, vlm, seed), config)
        for pair in result.pairs
    }


def with_settings(**changes: object) -> BDHSConfig:
    return CONFIG.model_copy(update=changes)


# --- masks and cuts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.97, 1.0])
def test_a_token_is_hidden_where_its_draw_is_below_rho(rho: float) -> None:
    draws = np.random.default_rng(7).random(500)
    assert draw_hidden_tokens(np.random.default_rng(7), 500, rho) == {j for j in range(500) if draws[j] < rho}


def test_rho_is_the_share_that_is_hidden() -> None:
    """20,000 tokens at 0.97: the standard deviation is sqrt(0.97 * 0.03 / 20000) = 0.0012."""
    rng = np.random.default_rng(1)
    assert len(draw_hidden_tokens(rng, 20_000, 0.97)) / 20_000 == pytest.approx(0.97, abs=0.005)
    assert draw_hidden_tokens(rng, 100, 0.0) == frozenset()
    assert draw_hidden_tokens(rng, 100, 1.0) == set(range(100))


def test_cuts_are_even_over_the_borders_that_leave_a_word() -> None:
    rng, sentence = np.random.default_rng(2), " A red cup is here."
    cuts = Counter(cut_sentence(rng, sentence) for _ in range(2000))
    assert set(cuts) == {" ", " A", " A red", " A red cup", " A red cup is"}
    assert chisquare(list(cuts.values())).pvalue > 0.001


def test_yes_and_no_are_swapped_half_of_the_time_and_a_swap_is_never_cut_off() -> None:
    rng = np.random.default_rng(3)
    cuts = Counter(cut_sentence(rng, "Yes, there is it.") for _ in range(4000))
    swapped = {cut: n for cut, n in cuts.items() if starts_with_yes_no(cut) and cut.startswith("No")}
    assert set(swapped) == {"No", "No, there", "No, there is"}
    assert set(cuts) - set(swapped) == {"", "Yes,", "Yes, there", "Yes, there is"}
    assert sum(swapped.values()) / 4000 == pytest.approx(0.5, abs=0.04)  # five standard deviations of 0.008
    assert chisquare(list(swapped.values())).pvalue > 0.001


def test_a_single_yes_or_no_keeps_the_swapped_word_without_its_full_stop() -> None:
    rng = np.random.default_rng(4)
    assert {cut_sentence(rng, "No.") for _ in range(50)} == {"", "Yes"}
    assert {cut_sentence(rng, " yes!") for _ in range(50)} == {" ", " no"}


@pytest.mark.parametrize("sentence", ["Now a car comes.", "North of it is a barn.", "None is red."])
def test_words_that_begin_like_no_are_never_swapped(sentence: str) -> None:
    rng = np.random.default_rng(5)
    assert all(sentence.startswith(cut_sentence(rng, sentence)) for _ in range(100))


# --- what is asked of the model ---------------------------------------------------------------------------------------


def test_the_context_of_a_sentence_is_the_true_earlier_text(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    beginnings = {
        "scene-00": ["", "A red cup and a blue plate stand on the table."],
        "scene-01": [
            "",
            "There are two cows and one hen.",
            "There are two cows and one hen.\n\nThe barn is red.",
        ],
        "scene-03": ["", "Yes."],
    }
    for number in range(1, 3):
        for seed in range(8):
            for sample in samples:
                drafted = drafts(sample, samples_dir, vlm, number, seed)
                before = beginnings.get(sample.id, [""])
                assert len(drafted) == len(before)
                for draft, context in zip(drafted, before, strict=True):
                    assert draft.request.prefill == context + draft.kept
                    assert draft.request.prefix.prompt == sample.prompt
                    assert draft.request.prefix.images == (samples_dir / sample.images[0],)
                    assert sample.reference is not None
                    rest = sample.reference.removeprefix(context)
                    if starts_with_yes_no(rest) and not rest.startswith(draft.kept):
                        # A swap survives the cut, and only the word itself was changed.
                        assert draft.kept.split()[0].strip(",.") in ("Yes", "No")
                        assert draft.kept.split()[1:] == rest.split()[1 : count_words(draft.kept)]
                    else:
                        assert rest.startswith(draft.kept)
                        assert count_words(rest) > count_words(draft.kept)


def test_both_halves_of_the_coin_come_up_among_the_drafts(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    kept = [drafts(samples[2], samples_dir, vlm, 1, seed)[0].kept for seed in range(40)]
    assert 10 <= sum(text.startswith("Yes") for text in kept) <= 30


def test_mask_and_cuts_are_drawn_anew_on_every_try_and_again_the_same(
    samples: list[Sample], samples_dir: Path, vlm: VLM
) -> None:
    sample = samples[1]
    first, again = (drafts(sample, samples_dir, vlm, 1) for _ in range(2))
    assert first == again
    others = [
        drafts(sample, samples_dir, vlm, 2),
        drafts(sample, samples_dir, vlm, 1, seed=1),
        drafts(sample.model_copy(update={"id": "scene-99"}), samples_dir, vlm, 1),
    ]
    for other in others:
        assert {d.request.hidden for d in other} != {d.request.hidden for d in first}
        assert [d.kept for d in other] != [d.kept for d in first]
        assert not {d.request.seed for d in other} & {d.request.seed for d in first}
    assert len({d.request.hidden for d in first}) == 1  # one mask a try, for all its sentences
    assert len({d.request.seed for d in first}) == 3
    everything = [drafts(sample, samples_dir, vlm, 1, seed)[0].request.hidden for seed in range(100)]
    assert sum(map(len, everything)) / (100 * IMAGE_TOKENS) == pytest.approx(0.8, abs=0.06)  # 4.5 x 0.0133


def test_the_last_of_several_tries_has_no_reference_but_a_mask(
    samples: list[Sample], samples_dir: Path, vlm: VLM
) -> None:
    (draft,) = drafts(samples[1], samples_dir, vlm, CONFIG.tries)
    assert (draft.kept, draft.request.prefill) == ("", "")
    rng = sample_rng(0, samples[1], CONFIG.tries)
    assert draft.request.hidden == draw_hidden_tokens(rng, IMAGE_TOKENS, CONFIG.rho)


# --- tries ------------------------------------------------------------------------------------------------------------


def test_an_answer_unlike_the_reference_is_taken_at_once(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    pairs = built(samples, samples_dir, vlm, with_settings(threshold=1.0))
    random_words = [pair for pair in pairs.values() if pair.provenance["similarity"] < 1]
    assert len(random_words) == len(samples)
    for pair in pairs.values():
        assert (pair.provenance["tries"], pair.provenance["guided"], pair.provenance["similar"]) == (1, True, False)


def test_answers_that_stay_similar_reach_the_last_unguided_try(
    samples: list[Sample], samples_dir: Path, vlm: VLM
) -> None:
    pairs = built(samples[:2], samples_dir, vlm, with_settings(threshold=NEVER_BELOW))
    sampling = Sampling(CONFIG.max_new_tokens, CONFIG.temperature, CONFIG.top_p)
    for sample in samples[:2]:
        pair = pairs[f"{sample.id}/bdhs"]
        tried = [drafts(sample, samples_dir, vlm, number) for number in (1, 2, 3)]
        guided = [
            generate(vlm, [d.request for d in drafted], _stopping(sampling), batch_size=4) for drafted in tried[:2]
        ]
        (last,) = generate(vlm, [tried[2][0].request], sampling, batch_size=1)
        assert pair.rejected == last.text.strip()
        assert pair.provenance["guided"] is False and pair.provenance["tries"] == 3
        assert pair.provenance["similar"] is (pair.provenance["similarity"] >= NEVER_BELOW)
        assert pair.provenance["tokens"] == sum(g.tokens for drafted in guided for g in drafted) + last.tokens


def test_a_single_try_stays_guided(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    pairs = built(samples[:2], samples_dir, vlm, with_settings(tries=1, threshold=NEVER_BELOW))
    config = with_settings(tries=1)
    for sample in samples[:2]:
        pair = pairs[f"{sample.id}/bdhs"]
        assert (pair.provenance["tries"], pair.provenance["guided"], pair.provenance["similar"]) == (1, True, True)
        kept = _drafts(_Attempt(sample), make_context(samples_dir, vlm), config)[0].kept
        assert kept and pair.rejected.startswith(kept)


def _stopping(sampling: Sampling) -> Sampling:
    return Sampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p, stop=(".",))


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "continuation", "joined"),
    [
        ("A red", " cup.", "A red cup."),
        ("A red", "dish cup.", "A reddish cup."),  # the model went on within the word
        (" A red", ", old cup.", " A red, old cup."),
        (" ", "There is a pan.", " There is a pan."),
        ("\n\n", "There is a pan. ", "\n\nThere is a pan."),
        ("Yes", ".", "Yes."),
        (" A red", "", " A red"),
        (" ", "", ""),  # nothing said: no space may stay behind
        ("", "", ""),
    ],
)
def test_a_kept_beginning_and_its_continuation(kept: str, continuation: str, joined: str) -> None:
    assert _join(kept, continuation) == joined


def test_a_guided_answer_is_kept_beginnings_and_continuations(
    samples: list[Sample], samples_dir: Path, vlm: VLM
) -> None:
    pairs = built(samples, samples_dir, vlm, CONFIG)
    sampling = _stopping(Sampling(CONFIG.max_new_tokens, CONFIG.temperature, CONFIG.top_p))
    for sample in samples:
        pair = pairs[f"{sample.id}/bdhs"]
        assert pair.provenance["guided"]
        pieces = []
        for draft in drafts(sample, samples_dir, vlm, pair.provenance["tries"]):
            (generation,) = generate(vlm, [draft.request], sampling, batch_size=1)
            pieces.append(draft.kept + generation.text)
        assert pair.rejected == "".join(piece.rstrip() for piece in pieces).strip()
        assert (pair.chosen, pair.prompt, pair.images) == (sample.reference, sample.prompt, sample.images)
        assert (pair.cluster, pair.builder, pair.provenance["task"]) == (sample.cluster, "bdhs", "description")


def test_a_model_that_knows_the_reference_writes_it_again(samples_dir: Path, fluent_dir: Path) -> None:
    """With all image tokens visible, every cut of every sentence is continued to the reference, spaces and all.

    A similarity of 1 is not below a threshold of 1, so each is tried to the end.
    """
    fluent = load_vlm(fluent_dir)
    learned = [(prompt, answer) for _, prompt, answer in LEARNED[:2]]
    samples = make_samples([f"images/{picture}.png" for picture, *_ in LEARNED[:2]], tuple(learned))
    config = BDHSConfig(rho=0, threshold=1.0, temperature=0.01, max_new_tokens=40)
    for seed in range(3):
        pairs = built(samples, samples_dir, fluent, config, seed)
        assert [pair.rejected for pair in pairs.values()] == [answer for _, answer in learned]
        for pair in pairs.values():
            assert pair.provenance["tries"] == 5 and pair.provenance["similarity"] == 1.0 and pair.provenance["similar"]


def test_a_sentence_of_which_nothing_is_left_leaves_no_space(samples_dir: Path, fluent_dir: Path) -> None:
    """The model ends its turn after the second sentence; cut at its start, the third is nothing."""
    fluent = load_vlm(fluent_dir)
    known = LEARNED[0][2]
    sample = make_samples(["images/0.png"], ((DESCRIBE, f"{known} End."),))
    config = BDHSConfig(rho=0, tries=1, temperature=0.01, max_new_tokens=40)
    assert [pair.rejected for pair in built(sample, samples_dir, fluent, config).values()] == [known]


def test_a_row_does_not_depend_on_its_neighbors(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    config = with_settings(threshold=0.35)  # so that some are tried again
    alone = built(samples, samples_dir, vlm, config.model_copy(update={"batch_size": 1, "wave": 1}))
    together = built(samples, samples_dir, vlm, config)
    backwards = built(samples[::-1], samples_dir, vlm, config.model_copy(update={"wave": 3}))
    single = built([samples[3]], samples_dir, vlm, config)
    assert alone == together == backwards
    assert single == {"scene-03/bdhs": together["scene-03/bdhs"]}
    assert len({pair.provenance["tries"] for pair in together.values()}) > 1
    assert list(alone) == [f"{sample.id}/bdhs" for sample in samples]  # one after another, in order


def test_waves_hold_as_many_samples_as_they_may(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    """A sample is read when there is room for it, so that memory does not grow with their number."""
    read: list[str] = []

    def reading() -> Iterable[Sample]:
        for sample in samples:
            read.append(sample.id)
            yield sample

    pairs = build_bdhs(reading(), make_context(samples_dir, vlm), with_settings(wave=2, max_new_tokens=2))
    next(pairs)
    assert len(read) == 2
    assert len(list(pairs)) == len(samples) - 1


def test_with_everything_hidden_the_pixels_do_not_matter(
    samples: list[Sample], samples_dir: Path, vlm: VLM, tmp_path: Path
) -> None:
    samples = samples[:3]
    save_scenes(tmp_path, len(samples), split="counter-test")
    for sample in samples:
        assert (tmp_path / sample.images[0]).read_bytes() != (samples_dir / sample.images[0]).read_bytes()
    blind = with_settings(rho=1.0, threshold=0.35)
    assert built(samples, samples_dir, vlm, blind) == built(samples, tmp_path, vlm, blind)
    seeing = with_settings(rho=0.0, threshold=0.35)
    assert _answers(built(samples, samples_dir, vlm, seeing)) != _answers(built(samples, tmp_path, vlm, seeing))


def _answers(pairs: dict[str, Pair]) -> Sequence[str]:
    return [pair.rejected for pair in pairs.values()]


GOLDEN_KEPT = ["There are two cows and one", "\n\n", "  A palm is next to"]
GOLDEN_HIDDEN = [0, 1, 2, 3, 5, 6, 7]
GOLDEN_SEEDS = [1969407478068179033, 6876482838831963977, 7224859985559862520]
#: id -> the rejected answer, tries, similarity, whether guided, tokens. The model is random, so its words are too.
GOLDEN_PAIRS = {
    "scene-02/bdhs": ("Yes, there is\ufffd\ufffdc of", 2, 0.338062, True, 8),
    "scene-00/bdhs": ("\ufffd nex yell\ufffd", 3, 0.0, False, 20),
    "scene-01/bdhs": ("umbre0\x03d", 3, 0.0, False, 28),
}


def test_fixed_seed_fixed_drafts(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    """What the random numbers decide, the same on every machine: cuts, mask and seeds of try 1 at seed 0."""
    drafted = drafts(samples[1], samples_dir, vlm)
    assert [draft.kept for draft in drafted] == GOLDEN_KEPT
    assert sorted(drafted[0].request.hidden) == GOLDEN_HIDDEN
    assert [draft.request.seed for draft in drafted] == GOLDEN_SEEDS


def test_fixed_seed_fixed_pairs(samples: list[Sample], samples_dir: Path, vlm: VLM) -> None:
    pairs = built(samples[:3], samples_dir, vlm, with_settings(max_new_tokens=4, threshold=0.35))
    keys = ("tries", "similarity", "guided", "tokens")
    assert {name: (pair.rejected, *map(pair.provenance.get, keys)) for name, pair in pairs.items()} == GOLDEN_PAIRS


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [None, "", " \n"])
def test_a_sample_without_reference_is_refused(samples_dir: Path, vlm: VLM, reference: str | None) -> None:
    sample = Sample(id="bare", images=("images/0.png",), prompt=DESCRIBE, reference=reference)
    with pytest.raises(InputError, match="'bare' has no reference"):
        built([sample], samples_dir, vlm, CONFIG)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rho=1.01", "rho = 1.01"),
        ("rho=-0.1", "rho = -0.1"),
        ("tries=0", "tries = 0"),
        ("threshold=0", "threshold = 0"),
        ("threshold=1.5", "threshold = 1.5"),
        ("temperature=0", "temperature = 0"),
        ("top_p=0", "top_p = 0"),
        ("rhoo=0.9", "unknown key 'rhoo'; did you mean 'rho'?"),
        ("wave=2", "key 'rho' is missing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("?", r"\?")):
        load_config(BDHSConfig, None, [override] if override.startswith(("rho=", "wave=")) else [override, "rho=0.9"])
