"""Judges without a server: the lab's base model judges the lab's texts, checked against ground truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from sightline.builders.rewriting import draft_seed
from sightline.data.samples import read_samples
from sightline.errors import InputError
from sightline.judges.accuracy import measure_accuracy
from sightline.judges.claims import find_nouns
from sightline.judges.judge import ComparisonInput, Judge, Verdict, prefer
from sightline.judges.length_control import JudgeConfig, LengthControlledJudgeConfig, _LengthControlled
from sightline.lab import BASE
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.lab.words import KINDS
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import JudgeInput, ScoreRequest, judge_input
from sightline.models.scalar_head import ScalarHead, answer_scores, new_head, save_head
from sightline.models.scorer import answer_logps
from sightline.records import Pair, Sample
from sightline.writers.writer import OracleWriterConfig, WriterTask

COUNT = 24
CLAIMS = {"name": "claims", "split": "nouns", "nouns": KINDS, "question": "Is there {claim} in the image?"}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    folder = tmp_path_factory.mktemp("judged") / "samples"
    write_scenes(ScenesConfig(described=1.0), "validation", COUNT, folder)
    return RunContext(folder, folder / "views", 0, load_vlm(BASE))


@pytest.fixture(scope="module")
def samples(context: RunContext) -> list[Sample]:
    return list(read_samples(context.folder))


@pytest.fixture(scope="module")
def both(context: RunContext, samples: list[Sample]) -> list[tuple[JudgeInput, JudgeInput]]:
    """References, and the same with a mistake or more."""
    good = [judge_input(sample, context.folder, sample.reference or "") for sample in samples]
    drafts = [
        WriterTask("corrupt", one, draft_seed(context, sample)) for one, sample in zip(good, samples, strict=True)
    ]
    bad = OracleWriterConfig(name="oracle").open(context).write(drafts)
    return [
        (one, judge_input(sample, context.folder, worse.text))
        for one, sample, worse in zip(good, samples, bad, strict=True)
        if worse.text
    ]


def opened(context: RunContext, **settings: Any) -> Judge:
    judge: Judge = TypeAdapter(JudgeConfig).validate_python(settings).open(context)
    return judge


def agreement(judge: Judge, both: Sequence[tuple[JudgeInput, JudgeInput]]) -> float:
    """How often the better text is preferred; a tie is half."""
    found = prefer(judge, [ComparisonInput(*pair) for pair in both])
    return sum({"first": 1.0, "tie": 0.5}.get(str(choice), 0.0) for choice in found) / len(found)


def test_the_oracle_is_always_right(context: RunContext, both: list[tuple[JudgeInput, JudgeInput]]) -> None:
    assert agreement(opened(context, name="oracle"), both) == 1.0
    with_truth = opened(context, name="oracle")
    assert with_truth.score([JudgeInput(both[0][0].prefix, "A cup.")])[0].score is None


@pytest.mark.slow
def test_claims_find_made_up_objects(context: RunContext, both: list[tuple[JudgeInput, JudgeInput]]) -> None:
    judge = opened(context, **CLAIMS)
    assert agreement(judge, both) > 0.65  # colors and counts are not asked for
    verdict = judge.score([JudgeInput(both[0][0].prefix, "There is nothing.")])[0]
    assert verdict == Verdict(0.0, {"claims": 0.0})
    present = judge.score([one for one, _ in both])
    absent = judge.score([JudgeInput(one.prefix, "A penguin, an igloo and a crab.") for one, _ in both])
    assert sum(v.score or 0 for v in absent) < sum(v.score or 0 for v in present) - COUNT
    assert all(v.aspects["claims"] == 3 for v in absent)


def test_claims_by_sentences_and_by_a_writer(context: RunContext, both: list[tuple[JudgeInput, JudgeInput]]) -> None:
    inputs = [one for one, _ in both[:4]]
    sentences = opened(context, name="claims").score(inputs)
    assert [v.aspects["claims"] for v in sentences] == [one.answer.count(".") for one in inputs]
    written = opened(context, name="claims", split="writer", writer={"name": "oracle"}).score(inputs)
    assert all(v.aspects["claims"] >= 1 for v in written)
    unknown = [JudgeInput(inputs[0].prefix, "A cup.")]  # no truth, so that the oracle cannot split it
    assert opened(context, name="claims", split="writer", writer={"name": "oracle"}).score(unknown)[0].score is None


def test_batches_do_not_change_verdicts(context: RunContext, both: list[tuple[JudgeInput, JudgeInput]]) -> None:
    inputs = [one for pair in both[:5] for one in pair]
    for name in ("claims", "self"):
        settings = CLAIMS if name == "claims" else {"name": "self"}
        one, other = (opened(context, **settings, batch_size=size).score(inputs) for size in (1, 7))
        assert [v.score for v in one] == pytest.approx([v.score for v in other], abs=1e-4)


def test_the_model_itself_prefers_what_the_picture_makes_likely(
    context: RunContext, both: list[tuple[JudgeInput, JudgeInput]]
) -> None:
    judge = opened(context, name="self")
    assert agreement(judge, both) > 0.7
    one = both[0][0]
    with torch.no_grad():
        seen, blind = (
            answer_logps(context.vlm, [ScoreRequest(prefix, (one.answer,))])
            for prefix in (one.prefix, type(one.prefix)((), one.prefix.prompt))
        )
    wanted = float((seen.sums() - blind.sums()) / seen.lengths())
    assert judge.score([one])[0].score == pytest.approx(wanted, abs=1e-5)
    assert judge.score([JudgeInput(type(one.prefix)((), "Hi."), "Hi.")])[0].score is None


def test_a_dpo_adapter_is_a_reward(
    context: RunContext, both: list[tuple[JudgeInput, JudgeInput]], tmp_path: Path
) -> None:
    vlm = add_lora(load_vlm(BASE), LoraSettings(rank=4, alpha=8.0))
    lesson = [ScoreRequest(one.prefix, (one.answer, other.answer)) for one, other in both[:8]]
    optimizer = torch.optim.Adam([p for p in vlm.model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(6):
        sums = answer_logps(vlm, lesson).sums()
        loss = -torch.nn.functional.logsigmoid(0.1 * (sums[:, 0] - sums[:, 1])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_adapter(vlm, tmp_path / "adapter")
    judge = opened(context, name="reward", model=BASE, adapter=tmp_path / "adapter", beta=0.1)
    scores = [verdict.score or 0 for verdict in judge.score([one for one, _ in both[:8]])]
    with torch.no_grad():
        trained = answer_logps(vlm, [ScoreRequest(one.prefix, (one.answer,)) for one, _ in both[:8]]).sums()[:, 0]
        before = answer_logps(context.vlm, [ScoreRequest(one.prefix, (one.answer,)) for one, _ in both[:8]]).sums()[
            :, 0
        ]
    assert scores == pytest.approx((0.1 * (trained - before)).tolist(), abs=1e-4)
    assert agreement(judge, both[:8]) > 0.8


class _Words:
    """Likes long answers, as judges do."""

    identity = "words"

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return [Verdict(float(len(one.answer.split())) if one.answer else None) for one in inputs]


def controlled(**settings: Any) -> Judge:
    config = LengthControlledJudgeConfig.model_validate(
        {"name": "length-controlled", "judge": {"name": "oracle"}, **settings}
    )
    return _LengthControlled(config, _Words())


def test_length_is_taken_out(both: list[tuple[JudgeInput, JudgeInput]]) -> None:
    prefix = both[0][0].prefix
    short, long, near = (JudgeInput(prefix, text) for text in ("A cup.", "A cup and a pan and a pot.", "A red cup."))
    assert prefer(_Words(), [ComparisonInput(short, long)]) == ["second"]
    assert prefer(controlled(per_word=1.0), [ComparisonInput(short, long)]) == ["tie"]
    assert prefer(controlled(per_word=2.0), [ComparisonInput(short, long)]) == ["first"]
    found = prefer(controlled(max_ratio=2.0), [ComparisonInput(short, long), ComparisonInput(short, near)])
    assert found == ["tie", "second"]
    assert prefer(controlled(per_word=1.0), [ComparisonInput(short, JudgeInput(prefix, ""))]) == [None]
    assert controlled(per_word=1.0).identity != controlled(per_word=2.0).identity


def test_identities_follow_what_decides(context: RunContext) -> None:
    one, other = opened(context, **CLAIMS), opened(context, **{**CLAIMS, "question": "Can you see {claim}?"})
    assert one.identity != other.identity
    assert opened(context, **CLAIMS, batch_size=3).identity == one.identity


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "claims", "split": "nouns"},
        {"name": "claims", "nouns": ["cup"]},
        {"name": "claims", "split": "writer"},
        {"name": "claims", "question": "Right?"},
        {"name": "oracel"},
        {"name": "length-controlled", "judge": {"name": "length-controlled"}},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(JudgeConfig).validate_python(settings)


def test_nouns_are_whole_words_in_either_number() -> None:
    text = "Two cups, an Umbrella and a panda on buses."
    assert find_nouns(text, ("cup", "pan", "umbrella", "bus")) == ["a cup", "an umbrella", "a bus"]


def test_what_is_no_reward_model_says_what_is_missing(context: RunContext, tmp_path: Path) -> None:
    vlm = add_lora(load_vlm(BASE), LoraSettings(rank=2, alpha=4.0))
    save_adapter(vlm, tmp_path)
    with pytest.raises(InputError, match=r"is not a reward model: it has no head\.json; .* or set judge\.beta"):
        opened(context, name="reward", model=BASE, adapter=tmp_path)
    save_head(new_head(vlm), "reward", tmp_path)
    with pytest.raises(InputError, match=r"a reward model with its own head; remove judge\.beta"):
        opened(context, name="reward", model=BASE, adapter=tmp_path, beta=0.1)
    save_head(ScalarHead(3), "reward", tmp_path)
    with pytest.raises(InputError, match="is for hidden states of size 3"):
        opened(context, name="reward", model=BASE, adapter=tmp_path)


def test_a_reward_model_scores_by_its_head_and_leaves_out_what_does_not_fit(
    context: RunContext, both: list[tuple[JudgeInput, JudgeInput]], tmp_path: Path
) -> None:
    """The last token's state times the weights; answers to one prompt side by side, or alone, are the same."""
    vlm = add_lora(load_vlm(BASE), LoraSettings(rank=2, alpha=4.0))
    head = new_head(vlm)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
    save_adapter(vlm, tmp_path)
    save_head(head, "reward", tmp_path)
    inputs = [one for pair in both[:4] for one in pair]
    long = JudgeInput(inputs[0].prefix, "cup " * 2000)
    judge = opened(context, name="reward", model=BASE, adapter=tmp_path)
    verdicts = judge.score([long, *inputs])
    assert verdicts[0] == Verdict(None, note="too long for the judge")
    with torch.no_grad():
        expected = [answer_scores(vlm, head, [ScoreRequest(one.prefix, (one.answer,))]).item() for one in inputs]
    assert [verdict.score for verdict in verdicts[1:]] == pytest.approx(expected, abs=1e-3)
    assert len(set(expected)) == len(expected)


def test_accuracy_is_the_share_of_chosen_answers_preferred(tmp_path: Path) -> None:
    """Longer is better to this judge: right, wrong, a tie, right, unscored; (1 + 0 + 1/2 + 1) / 4."""
    words = [("a cup", "cup"), ("cup", "a cup"), ("a cup", "a pan"), ("a red cup", "pan"), ("cup", "")]
    pairs = [
        Pair(id=str(n), prompt="Describe.", chosen=chosen, rejected=rejected, builder="hand", cluster=f"c{n}")
        for n, (chosen, rejected) in enumerate(words)
    ]
    counts: list[int] = []
    found = measure_accuracy(_Words(), pairs, tmp_path, counts.append)
    assert (found.share.value, found.share.n, found.share.unscored, found.ties) == (0.625, 4, 1, 1)
    assert found.share.ci95 is not None and found.share.ci95[0] < 0.625 < found.share.ci95[1]
    assert counts == [5]
    with pytest.raises(InputError, match="scored none of the pairs"):
        measure_accuracy(_Words(), pairs[4:], tmp_path, counts.append)
