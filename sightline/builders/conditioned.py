"""Pairs whose label depends on what provider and user want: MetaAlign (arXiv 2410.14184), in its four kinds.

Of two answers that follow opposite wishes, the chosen one follows the wish in force: the provider's (System Info) if
both state one, else the user's. `data.turns` renders the tiers, the config's `preferences` propose wishes, and
`writers` write the answers.
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
    """Two opposite wishes in words, which no answer can both follow; `name` is their subject."""

    name: str
    wanted: str
    against: str


Propose = Callable[[Sample, np.random.Generator], WishContrast | None]


class ContrastConfig(Config):
    """Two opposite wishes, each in several wordings. With given answers, chosen ones follow `wanted`."""

    name: str = Field(description="name of the contrast, recorded in the provenance of its pairs")
    wanted: tuple[str, ...] = Field(
        min_length=1, description="wordings of one wish; with given answers, the chosen one follows it"
    )
    against: tuple[str, ...] = Field(min_length=1, description="wordings of the opposite wish")


class ListedConfig(Config):
    """Your own wishes; each sample draws one of the contrasts at random."""

    name: Literal["listed"] = Field(description="selects this source of wishes")
    contrasts: tuple[ContrastConfig, ...] = Field(min_length=1, description="the contrasts; each sample draws one")

    def open(self) -> Propose:
        """Return the function that proposes a contrast."""

        def propose(_: Sample, rng: np.random.Generator) -> WishContrast | None:
            one = self.contrasts[int(rng.integers(len(self.contrasts)))]
            texts = (side[int(rng.integers(len(side)))] for side in (one.wanted, one.against))
            return WishContrast(one.name, *texts)

        return propose


class LabConfig(Config):
    """Wishes of the embedded lab, which its oracle can check."""

    name: Literal["lab"] = Field(description="selects this source of wishes")

    def open(self) -> Propose:
        """Return the function that proposes a contrast, which the lab's oracle offers."""
        return cast(Propose, oracle_part("lab", "wishes"))


PreferencesConfig = Annotated[ListedConfig | LabConfig, Field(discriminator="name")]


NAME = "conditioned"
NO_WISH, NOT_WRITTEN, ALIKE = "no wish fits the sample", "the writer gave no text", "both wishes give one answer"
NO_REJECTED, STATED = "no rejected answer is given", "wishes are stated already"
_PURPOSE = 2500
Kind = Literal["priority", "helpful", "consensus", "diverse"]


class KindsConfig(Config):
    """Relative weights of the four kinds; the paper names the kinds but not their shares."""

    priority: float = Field(default=1.0, ge=0, description="provider and user disagree: the provider wins")
    helpful: float = Field(default=1.0, ge=0, description="only the user states a wish")
    consensus: float = Field(default=1.0, ge=0, description="both agree; of two such answers the truer is chosen")
    diverse: float = Field(default=1.0, ge=0, description="two users with opposite wishes: a pair and its flipped twin")

    @model_validator(mode="after")
    def _some(self) -> "KindsConfig":
        if not sum(dict(self).values()):
            raise ValueError("all kinds have weight 0; give one a positive weight")
        return self


class ConditionedConfig(Config):
    """Sources of wishes and answers. `writer: null` uses the two answers of given pairs instead of writing new ones."""

    preferences: PreferencesConfig = Field(description="where wishes come from: your own list or the lab")
    writer: WriterConfig | None = Field(
        description="the writer of both answers; null: use the two answers of given pairs"
    )
    kinds: KindsConfig = Field(default=KindsConfig(), description="shares of the kinds of pairs")
    neutral: tuple[str, ...] = Field(
        default=(), description="provider texts without a wish; half of the prompts get one"
    )
    wave: int = Field(default=32, gt=0, description="samples per writer call")

    @model_validator(mode="after")
    def _consensus_needs_writer(self) -> "ConditionedConfig":
        if self.writer is None and self.kinds.consensus:
            raise ValueError("the kind consensus needs a writer to corrupt answers; set writer, or kinds.consensus=0")
        return self


@dataclass(frozen=True)
class _Plan:
    """Plan of a sample's pairs: `first` is the wish in force, `neutral` the provider's text without a wish."""

    sample: Sample
    kind: Kind
    name: str
    first: str
    second: str
    swapped: bool
    neutral: str


def build_conditioned(
    samples: Iterable[Sample], context: RunContext, config: ConditionedConfig
) -> Iterator[BuildResult]:
    """Yield one result per sample (two pairs for diverse); a row depends on (sample, seed) and the writer."""
    propose = config.preferences.open()
    writer = None if config.writer is None else config.writer.open(context)
    for wave in batched(samples, config.wave):
        plans = [_plan(sample, propose, sample_rng(context.seed, sample, _PURPOSE), config) for sample in wave]
        able = [plan for plan in plans if plan is not None]
        texts = {plan.sample.id: two for plan, two in zip(able, _answers(able, context, writer), strict=True)}
        for sample, plan in zip(wave, plans, strict=True):
            if plan is not None:
                yield _make_result(plan, texts[sample.id], writer)
            else:
                yield BuildResult(sample_id=sample.id, dropped=STATED if _states_wishes(sample) else NO_WISH)


def meta_prompts(kind: Kind, first: str, second: str, neutral: str = "") -> list[tuple[Turn, ...]]:
    """Return the tiers of each pair of a kind with `first` in force; diverse adds one with `second` in force."""
    if kind == "priority":
        return [tiers(first, second)]
    if kind == "consensus":
        return [tiers(first, first)]
    users = [first, second] if kind == "diverse" else [first]
    return [tiers(neutral, user) for user in users]


def _plan(sample: Sample, propose: Propose, rng: np.random.Generator, config: ConditionedConfig) -> _Plan | None:
    contrast = propose(sample, rng)
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


def _answers(plans: Sequence[_Plan], context: RunContext, writer: Writer | None) -> list[tuple[str, str]]:
    """Return each plan's answers: one that follows its first wish, and one to reject; empty if there is none."""
    if writer is None:
        given = [(require_reference(plan.sample), str(plan.sample.truth.get("rejected") or "")) for plan in plans]
        return [two[::-1] if plan.swapped else two for plan, two in zip(plans, given, strict=True)]

    def write(task: Task, answers: Sequence[str], wishes: Sequence[str], number: int) -> list[str]:
        inputs = zip(plans, answers, wishes, strict=True)
        drafts = [
            WriterTask(
                task, judge_input(p.sample, context.folder, text), draft_seed(context, p.sample, number), beside=wish
            )
            for p, text, wish in inputs
            if text
        ]
        written = iter(writer.write(drafts))
        return [(next(written).text or "").strip() if text else "" for text in answers]

    references = [require_reference(plan.sample) for plan in plans]
    first = write("follow", references, [plan.first for plan in plans], 1)
    other = write("follow", references, [plan.second for plan in plans], 2)
    wrong = write("corrupt", [t if p.kind == "consensus" else "" for p, t in zip(plans, first, strict=True)], other, 3)
    return [(a, c if p.kind == "consensus" else b) for p, a, b, c in zip(plans, first, other, wrong, strict=True)]


def _make_result(plan: _Plan, texts: tuple[str, str], writer: Writer | None) -> BuildResult:
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
    """Make the pair of one meta-prompt; the second of two is the first with its label flipped."""
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
