"""Pairs whose label hangs on what provider and user want: MetaAlign (arXiv 2410.14184), in its four kinds.

Of two answers that follow opposite wishes, the one is chosen that follows the wish in force: the provider's (System
Info) where both state one, else the user's. How the tiers are told is `data.turns`, where wishes come from
`preferences`, and who writes answers that follow them `writers`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np
from pydantic import Field, model_validator

from sightline.builders.builder import Builder, BuildResult, always, batched, make_pair, require_reference, sample_rng
from sightline.builders.rewriting import draft_seed
from sightline.config import Config
from sightline.data.turns import TIERS, tiers
from sightline.models.context import RunContext
from sightline.models.requests import judge_input
from sightline.oracles import oracle_part
from sightline.records import Pair, Sample, Turn
from sightline.writers.endpoint import WriterConfig
from sightline.writers.writer import Task, Writer, WriterTask


@dataclass(frozen=True)
class WishContrast:
    """Two wishes that no answer can both follow, in words; `name` is what they are about."""

    name: str
    wanted: str
    against: str


Propose = Callable[[Sample, np.random.Generator], WishContrast | None]


class ContrastConfig(Config):
    """Two opposite wishes, each in some wordings. With given answers `wanted` is what chosen ones are like."""

    name: str
    wanted: tuple[str, ...] = Field(min_length=1)
    against: tuple[str, ...] = Field(min_length=1)


class ListedConfig(Config):
    """Wishes of your own; each sample is given one of the contrasts by chance."""

    name: Literal["listed"]
    contrasts: tuple[ContrastConfig, ...] = Field(min_length=1)

    def open(self) -> Propose:
        """The function that proposes."""

        def propose(_: Sample, rng: np.random.Generator) -> WishContrast | None:
            one = self.contrasts[int(rng.integers(len(self.contrasts)))]
            texts = (side[int(rng.integers(len(side)))] for side in (one.wanted, one.against))
            return WishContrast(one.name, *texts)

        return propose


class LabConfig(Config):
    """The embedded lab's wishes, which its oracle can check."""

    name: Literal["lab"]

    def open(self) -> Propose:
        """The function that proposes, which the lab's oracle offers."""
        return cast(Propose, oracle_part("lab", "wishes"))


PreferencesConfig = Annotated[ListedConfig | LabConfig, Field(discriminator="name")]


NAME = "conditioned"
NO_WISH, NOT_WRITTEN, ALIKE = "no wish fits the sample", "the writer gave no text", "both wishes give one answer"
NO_REJECTED, STATED = "no rejected answer is given", "wishes are stated already"
_PURPOSE = 2500
Kind = Literal["priority", "helpful", "consensus", "diverse"]


class KindsConfig(Config):
    """How often each kind is drawn, as relative weights; the paper names the four and not their shares."""

    priority: float = Field(default=1.0, ge=0, description="provider and user contradict each other: the provider wins")
    helpful: float = Field(default=1.0, ge=0, description="the user alone wishes something")
    consensus: float = Field(default=1.0, ge=0, description="both agree, and of two answers so the truer is chosen")
    diverse: float = Field(default=1.0, ge=0, description="two users wish the opposite: a pair and its flipped twin")

    @model_validator(mode="after")
    def _some(self) -> "KindsConfig":
        if not sum(dict(self).values()):
            raise ValueError("all kinds have the weight 0; give one of them more")
        return self


class ConditionedConfig(Config):
    """Who wishes what. `writer: null` takes the two answers of given pairs instead of writing new ones."""

    preferences: PreferencesConfig
    writer: WriterConfig | None
    kinds: KindsConfig = KindsConfig()
    neutral: tuple[str, ...] = Field(default=(), description="texts of a provider who wishes nothing; half say one")
    wave: int = Field(default=32, gt=0, description="samples given to the writer together")

    @model_validator(mode="after")
    def _truth_needs_a_writer(self) -> "ConditionedConfig":
        if self.writer is None and self.kinds.consensus:
            raise ValueError("the kind consensus needs a writer that corrupts; name one, or set kinds.consensus=0")
        return self


@dataclass(frozen=True)
class _Plan:
    """What is to be made of a sample: `first` is the wish in force, the provider's neutral words stand in `neutral`."""

    sample: Sample
    kind: Kind
    name: str
    first: str
    second: str
    swapped: bool
    neutral: str


def build_conditioned(samples: Iterable[Sample], tools: RunContext, config: ConditionedConfig) -> Iterator[BuildResult]:
    """One pair a sample, of the kind diverse two; a row depends on (sample, seed) and the writer alone."""
    propose = config.preferences.open()
    writer = None if config.writer is None else config.writer.open(tools)
    for wave in batched(samples, config.wave):
        plans = [_plan(sample, propose(sample, rng), rng, config) for sample in wave for rng in [_rng(tools, sample)]]
        able = [plan for plan in plans if plan is not None]
        texts = {plan.sample.id: two for plan, two in zip(able, _answers(able, tools, writer), strict=True)}
        for sample, plan in zip(wave, plans, strict=True):
            why = STATED if _states_wishes(sample) else NO_WISH
            yield (
                BuildResult(sample_id=sample.id, dropped=why) if plan is None else _made(plan, texts[sample.id], writer)
            )


def meta_prompts(kind: Kind, first: str, second: str, neutral: str = "") -> list[tuple[Turn, ...]]:
    """The tiers of each pair of a kind in which `first` is in force; of diverse, the second has `second` in force."""
    if kind == "priority":
        return [tiers(first, second)]
    if kind == "consensus":
        return [tiers(first, first)]
    users = [first, second] if kind == "diverse" else [first]
    return [tiers(neutral, user) for user in users]


def _rng(tools: RunContext, sample: Sample) -> np.random.Generator:
    return sample_rng(tools.seed, sample, _PURPOSE)


def _plan(
    sample: Sample, contrast: WishContrast | None, rng: np.random.Generator, config: ConditionedConfig
) -> _Plan | None:
    if contrast is None or _states_wishes(sample):
        return None
    weights = dict(config.kinds)
    kind: Kind = str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))  # type: ignore[assignment]
    swapped = bool(rng.random() < 0.5)
    wishes = (contrast.wanted, contrast.against)
    neutral = str(rng.choice(config.neutral)) if config.neutral and rng.random() < 0.5 else ""
    first, second = wishes[::-1] if swapped else wishes
    return _Plan(sample, kind, contrast.name, first, second, swapped, neutral)


def _states_wishes(sample: Sample) -> bool:
    return any(turn.role in TIERS for turn in sample.history)


def _answers(plans: Sequence[_Plan], tools: RunContext, writer: Writer | None) -> list[tuple[str, str]]:
    """Of each plan an answer that follows its first wish, and the one to be rejected; empty where there is none."""
    if writer is None:
        given = [(require_reference(plan.sample), str(plan.sample.truth.get("rejected") or "")) for plan in plans]
        return [two[::-1] if plan.swapped else two for plan, two in zip(plans, given, strict=True)]

    def write(task: Task, answers: Sequence[str], wishes: Sequence[str], number: int) -> list[str]:
        asked = zip(plans, answers, wishes, strict=True)
        drafts = [
            WriterTask(
                task, judge_input(p.sample, tools.folder, text), draft_seed(tools, p.sample, number), beside=wish
            )
            for p, text, wish in asked
            if text
        ]
        written = iter(writer.write(drafts))
        return [(next(written).text or "").strip() if text else "" for text in answers]

    references = [require_reference(plan.sample) for plan in plans]
    first = write("follow", references, [plan.first for plan in plans], 1)
    other = write("follow", references, [plan.second for plan in plans], 2)
    wrong = write("corrupt", [t if p.kind == "consensus" else "" for p, t in zip(plans, first, strict=True)], other, 3)
    return [(a, c if p.kind == "consensus" else b) for p, a, b, c in zip(plans, first, other, wrong, strict=True)]


def _made(plan: _Plan, texts: tuple[str, str], writer: Writer | None) -> BuildResult:
    if not all(texts):
        return BuildResult(sample_id=plan.sample.id, dropped=NO_REJECTED if writer is None else NOT_WRITTEN)
    if texts[0] == texts[1]:
        return BuildResult(sample_id=plan.sample.id, dropped=ALIKE)
    metas = meta_prompts(plan.kind, plan.first, plan.second, plan.neutral)
    pairs = tuple(_pair(plan, metas, texts, place, writer) for place in range(len(metas)))
    return BuildResult(sample_id=plan.sample.id, pairs=pairs, tallies={plan.kind: len(pairs)})


def _pair(
    plan: _Plan, metas: Sequence[tuple[Turn, ...]], texts: tuple[str, str], place: int, writer: Writer | None
) -> Pair:
    """The pair of one meta-prompt; the second of two is the first with its label flipped."""
    chosen, rejected = texts[::-1] if place else texts
    provenance = {
        "kind": plan.kind,
        "preference": plan.name,
        "in_force": (plan.first, plan.second)[place],
        "flipped": plan.swapped != bool(place),
        "writer": "" if writer is None else writer.identity,
    }
    sample = plan.sample.model_copy(update={"history": (*metas[place], *plan.sample.history)})
    suffix = f"-{place}" if len(metas) > 1 else ""
    return make_pair(sample, NAME, chosen, rejected, suffix=suffix, provenance=provenance)


CONDITIONED = Builder(
    name=NAME,
    summary="Let the wishes of provider and user decide which of two answers is chosen (MetaAlign, arXiv 2410.14184).",
    config=ConditionedConfig,
    build=build_conditioned,
    needs_model=False,
    needs_reference=always,
    remedy="give wishes that fit the samples, and a writer that follows them",
)
