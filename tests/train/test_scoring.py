"""The scores of a pair against plain forward passes row by row, for policy and references."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from sightline.errors import InputError
from sightline.losses.objective import BoundLoss, Objective
from sightline.losses.types import LossOut, PairLogps, Requirement
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.head import tokens_within
from sightline.models.loading import load_vlm
from sightline.models.requests import make_prefix
from sightline.models.tensor_cache import TensorCache
from sightline.models.vlm import VLM
from sightline.models.ways.base import Way
from sightline.models.ways.packed import PackedWay
from sightline.models.ways.row_by_row import RowByRowWay
from sightline.records.rows import Pair
from sightline.train.log import read_log
from sightline.train.preference import PreferenceTask, RunningMean
from sightline.train.reference_cache import Reference, ReferenceModel, open_reference
from sightline.train.run import train
from sightline.train.scoring import Scoring, mismatched_requests, score_pairs, score_with_entropy
from sightline.train.sources import Order
from tests.models import plain
from tests.train.test_loop import known, stir
from tests.train.test_run import config_with, write_pairs

Make = Callable[..., VLM]
ALL = frozenset({Requirement.SECOND_REJECTED, Requirement.SPANS, Requirement.CORRUPTED_IMAGE, Requirement.NO_IMAGE})


@pytest.fixture
def black(tmp_path: Path) -> Callable[[Pair], tuple[Path, ...]]:
    """A black picture for every picture."""
    path = tmp_path / "black.png"
    Image.new("RGB", (32, 32)).save(path)
    return lambda pair: (path,) * len(pair.images)


def plain_sum(vlm: VLM, images: Sequence[Path], prompt: str, answer: str) -> float:
    with torch.no_grad():
        return plain.token_logps(vlm.model, vlm.processor, list(images), prompt, answer).sum().item()


def test_every_number_is_that_of_a_row_of_its_own(
    make_policy: Make, full_pairs: list[Pair], black: Callable[[Pair], tuple[Path, ...]]
) -> None:
    vlm = make_policy()
    stir(vlm)
    found = score_pairs(vlm, full_pairs, Scoring(ALL, black), autocast=False)
    for place, pair in enumerate(full_pairs):
        own = [Path(image) for image in pair.images]
        none: list[Path] = []
        assert pair.second_rejected is not None
        rows = {
            "chosen": (own, pair.chosen),
            "rejected": (own, pair.rejected),
            "second_rejected": (own, pair.second_rejected),
            "weakened_chosen": (black(pair), pair.chosen),
            "blind_chosen": (none, pair.chosen),
            "blind_rejected": (none, pair.rejected),
        }
        for name, (images, answer) in rows.items():
            expected = plain_sum(vlm, images, pair.prompt, answer)
            assert found.field(name)[place].item() == pytest.approx(expected, rel=1e-4), name
    assert found.mismatched is None
    assert (found.field("second_rejected_tokens") > found.field("rejected_tokens")).all()


@pytest.mark.parametrize("way", [PackedWay(), RowByRowWay()])
def test_entropy_is_the_mean_over_both_answers_tokens(
    make_policy: Make, full_pairs: list[Pair], black: Callable[[Pair], tuple[Path, ...]], way: Way
) -> None:
    """Whatever else is scored beside them; the log-probs are those that are had without it, bit for bit."""
    vlm = replace(make_policy(), way=way)
    stir(vlm)
    scoring = Scoring(ALL, black)
    logps, entropy = score_with_entropy(vlm, full_pairs, scoring, autocast=False)
    again = score_pairs(vlm, full_pairs, scoring, autocast=False)
    assert not entropy.requires_grad
    assert all(torch.equal(logps.field(name), again.field(name)) for name in ("chosen", "rejected", "blind_chosen"))
    for pair, found in zip(full_pairs, entropy.tolist(), strict=True):
        images = [Path(image) for image in pair.images]
        with torch.no_grad():
            tokens = [
                plain.token_entropies(vlm.model, vlm.processor, images, pair.prompt, answer)
                for answer in (pair.chosen, pair.rejected)
            ]
        assert found == pytest.approx(torch.cat(tokens).mean().item(), rel=1e-5)


def test_full_training_is_measured_against_the_weights_before_it(
    model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    """The reference first sees a pair at the step that draws it, when the policy has moved already, and keeps it."""
    config = config_with("lora=null", "epochs=2", "optim.lr=0.001")
    out = train(model_dir, write_pairs(tmp_path / "pairs", pairs), tmp_path / "out", config, seed=2)
    base = load_vlm(model_dir)
    order, rows = Order(len(pairs), 4, 2, epochs=2), list(read_log(out / "log.jsonl"))
    assert len(rows) == 4
    for row in rows:
        drawn = [pairs[place] for place in order.draw(row.step)[1]]
        for name in ("chosen", "rejected"):
            expected = sum(
                plain_sum(base, list(map(Path, pair.images)), pair.prompt, getattr(pair, name)) for pair in drawn
            )
            assert getattr(row, f"{name}_ref_logps") == pytest.approx(expected / len(drawn), rel=1e-5)
        moved = abs(known(row.chosen_logps) - known(row.chosen_ref_logps))
        assert moved < 1e-4 if row.step == 0 else moved > 0.05


def blind_sum(vlm: VLM, pair: Pair, answer: str) -> float:
    """The log-prob of an answer by Transformers' own forward over the processor's tensors with zeros for pixels."""
    text = plain.prompt_text([Path(pair.images[0])], pair.prompt)
    whole = plain.inputs_of(vlm.processor, [Path(pair.images[0])], f"{text} {answer}</s>")
    start = plain.inputs_of(vlm.processor, [Path(pair.images[0])], text)["input_ids"].shape[1]
    whole["pixel_values"] = torch.zeros_like(whole["pixel_values"])
    with torch.no_grad():
        logps = vlm.model(**whole).logits[0, start - 1 : -1].double().log_softmax(-1)
    return float(logps.gather(-1, whole["input_ids"][0, start:, None]).sum())


def test_a_zero_image_is_zeros_in_the_place_of_the_picture_for_policy_reference_and_cache(
    make_policy: Make, pairs: list[Pair], tmp_path: Path
) -> None:
    """Beside the pair's own rows, which have the same files; and never the number that the other blind side has."""
    vlm = replace(make_policy(), cache=TensorCache(tmp_path / "cache", max_bytes=10**8))
    stir(vlm)
    zeros, none = (Scoring(frozenset({Requirement.NO_IMAGE}), blind=blind) for blind in ("zero-image", "none"))
    found, other = (score_pairs(vlm, pairs[:3], scoring, autocast=False) for scoring in (zeros, none))
    sides = [(place, pair, side) for place, pair in enumerate(pairs[:3]) for side in ("chosen", "rejected")]
    for place, pair, side in sides:
        blind = found.field(f"blind_{side}")[place].item()
        assert blind == pytest.approx(blind_sum(vlm, pair, getattr(pair, side)), rel=1e-4)
        own = plain_sum(vlm, [Path(pair.images[0])], pair.prompt, getattr(pair, side))
        assert found.field(side)[place].item() == pytest.approx(own, rel=1e-4)
        assert abs(blind - own) > 1e-3 and abs(blind - other.field(f"blind_{side}")[place].item()) > 1e-3
    numbers = [Reference(vlm, scoring, autocast=False, keep=False)(pairs[:3]) for scoring in (zeros, none, zeros)]
    with vlm.model.disable_adapter():
        before = [[blind_sum(vlm, pair, answer) for answer in (pair.chosen, pair.rejected)] for pair in pairs[:3]]
    for each in (numbers[0], numbers[2]):
        sums = torch.stack([each.field("blind_chosen"), each.field("blind_rejected")], 1)
        torch.testing.assert_close(sums.double(), torch.tensor(before).double(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(numbers[0].field("blind_chosen"), numbers[1].field("blind_chosen"), atol=1e-3)


def test_training_with_either_blind_side_steps_apart(model_dir: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """The second step sees the first one's update; with the same guide the losses differ by the blind side alone."""
    loss = "loss={name: v-dpo, beta: 0.5, gamma: 1.5, guide: reference}"
    given = write_pairs(tmp_path / "pairs", pairs)
    rows = [
        list(read_log(train(model_dir, given, tmp_path / blind, config_with(loss, f"blind={blind}"), 0) / "log.jsonl"))
        for blind in ("none", "zero-image")
    ]
    assert rows[0][0].chosen_logps == pytest.approx(known(rows[1][0].chosen_logps), rel=1e-5)
    assert abs(rows[0][0].loss - rows[1][0].loss) > 1e-3
    with pytest.raises(InputError, match="blind is zero-image and no loss has a blind side"):
        config_with("blind=zero-image")


def test_spans_pick_the_tokens_of_their_characters(make_policy: Make, full_pairs: list[Pair]) -> None:
    """The spelled-out tokens inside the last word's span are that word, and their sum is the field."""
    vlm = make_policy()
    found = score_pairs(vlm, full_pairs, Scoring(frozenset({Requirement.SPANS})), autocast=False)
    for place, pair in enumerate(full_pairs):
        prefix = encode_prefix(vlm, make_prefix(pair, Path()))
        inside = tokens_within(vlm, prefix, pair.chosen, pair.chosen_spans)
        ids = encode_answer(vlm, prefix, pair.chosen).ids[-len(inside) :]
        decoded = vlm.tokenizer.decode([i for i, is_inside in zip(ids, inside.tolist(), strict=True) if is_inside])
        assert decoded.strip(" .") == pair.chosen.rstrip(".").rpartition(" ")[2]
        assert not inside[-1], "the end of the turn is unchanged"
        tokens = plain.token_logps(
            vlm.model, vlm.processor, [Path(image) for image in pair.images], pair.prompt, pair.chosen
        )
        assert found.field("chosen_changed")[place].item() == pytest.approx(tokens[inside].sum().item(), rel=1e-4)
        assert found.field("chosen_changed_tokens")[place] == inside.sum() > 0


def test_a_whole_span_is_all_but_the_end_and_an_empty_one_nothing(make_policy: Make, pairs: list[Pair]) -> None:
    vlm, pair = make_policy(), pairs[0]
    prefix = encode_prefix(vlm, make_prefix(pair, Path()))
    whole = tokens_within(vlm, prefix, pair.chosen, [(0, len(pair.chosen))])
    assert whole[:-1].all() and not whole[-1]
    assert not tokens_within(vlm, prefix, pair.chosen, [(3, 3)]).any()
    before = tokens_within(vlm, prefix, pair.chosen, [(0, 2)])  # "A ", whose space begins the next token
    assert before.tolist() == [True] + [False] * (len(before) - 1)
    with pytest.raises(InputError, match=r"span \(0, 99\) is outside"):
        tokens_within(vlm, prefix, pair.chosen, [(0, 99)])


def test_a_reference_has_the_same_numbers_as_a_policy_of_its_weights(
    make_policy: Make,
    model_dir: Path,
    full_pairs: list[Pair],
    black: Callable[[Pair], tuple[Path, ...]],
    tmp_path: Path,
) -> None:
    """Cold, warm and kept, for the policy without its adapter and for a model of its own."""
    vlm = replace(make_policy(), cache=TensorCache(tmp_path / "cache", max_bytes=10**8))
    stir(vlm)
    scoring = Scoring(ALL, black)
    expected = score_pairs(load_vlm(model_dir), full_pairs, scoring, autocast=False)
    cold = Reference(vlm, scoring, autocast=False, keep=True)
    warm = Reference(vlm, scoring, autocast=False, keep=False)
    other = Reference(
        replace(vlm, cache=None), scoring, autocast=False, keep=True, frozen=ReferenceModel(vlm, model_dir)
    )
    other.precompute(full_pairs)
    numbers = [cold(full_pairs), warm(full_pairs), cold(full_pairs), other(full_pairs)]
    for name, value in vars(expected).items():
        if value is not None:
            torch.testing.assert_close(numbers[0].field(name).to(value.dtype), value.detach(), rtol=1e-4, atol=1e-4)
            assert all(torch.equal(numbers[0].field(name), each.field(name)) for each in numbers[1:]), name


def test_strangers_are_the_next_pairs_answers(pairs: list[Pair]) -> None:
    mismatches = mismatched_requests(pairs[:3])
    assert [each.answers[0] for each in mismatches] == [pairs[1].chosen, pairs[2].rejected, pairs[0].chosen]
    assert [each.prefix.prompt for each in mismatches] == [pair.prompt for pair in pairs[:3]]


@pytest.mark.parametrize("slices", [(6,), (4, 2), (1,) * 6])
def test_every_pair_is_told_the_mean_of_the_whole_step(
    make_policy: Make, pairs: list[Pair], slices: tuple[int, ...]
) -> None:
    """However the step is cut, the estimate is the mean over all six strangers' log-ratios, row by row."""
    vlm = make_policy()
    stir(vlm)
    seen: list[float] = []

    def loss(policy: PairLogps, reference: PairLogps) -> LossOut:
        seen.extend((policy.field("mismatched") - reference.field("mismatched")).tolist())
        return LossOut(-policy.chosen, policy.chosen.detach(), policy.rejected.detach())

    objective = Objective((BoundLoss("made up", loss, frozenset({Requirement.REFERENCE, Requirement.MISMATCHED})),))
    task = PreferenceTask(vlm, objective, Reference(vlm, autocast=False, keep=True), autocast=False, slice_size=4)
    losses, start = task.begin(pairs), 0
    for length in slices:
        losses(pairs[start : start + length])
        start += length
    ratios = []
    for each in mismatched_requests(pairs):
        scored = (each.prefix.images, each.prefix.prompt, each.answers[0])
        with vlm.model.disable_adapter():
            before = plain_sum(vlm, *scored)
        ratios.append(plain_sum(vlm, *scored) - before)
    assert seen == pytest.approx([sum(ratios) / 6] * 6, rel=1e-2, abs=1e-4)
    assert task.begin(pairs[:1])(pairs[:1]).loss.shape == (1,) and seen[-1] == 0.0


def test_a_running_mean_by_hand() -> None:
    """1, 3, 8: means 1, 2, 4; with momentum 0.5 from 0: 0.5, 1.75, 4.875."""
    plainly, forgetful = RunningMean(), RunningMean(0.5)
    found: list[float] = []
    for level in (1.0, 3.0, 8.0):
        plainly.move(level)
        forgetful.move(level)
        found += [plainly.value, forgetful.value]
    assert found == pytest.approx([1.0, 0.5, 2.0, 1.75, 4.0, 4.875])


def test_a_further_reference_must_speak_the_policys_language(
    make_policy: Make, model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = make_policy()
    adapted = add_lora(load_vlm(model_dir), LoraSettings(2, 4.0), seed=5)
    stir(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    reference = Reference(vlm, autocast=False, keep=False, frozen=open_reference(vlm, tmp_path / "adapter"))
    with torch.no_grad():
        expected = score_pairs(replace(adapted, model=adapted.model.eval()), pairs[:2], autocast=False)
    torch.testing.assert_close(reference(pairs[:2]).chosen, expected.chosen, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="neither a model nor an adapter"):
        open_reference(vlm, tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "idefics3"}')
    with pytest.raises(InputError, match="is a 'idefics3' model and the policy a 'llava'"):
        open_reference(vlm, foreign)
    (foreign / "config.json").write_text((model_dir / "config.json").read_text())
    other = AutoTokenizer.from_pretrained(model_dir)
    other.add_tokens(["zebra"])
    other.save_pretrained(foreign)
    with pytest.raises(InputError, match=r"the tokenizer of .* is not the policy's"):
        open_reference(vlm, foreign)
