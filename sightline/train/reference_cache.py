"""Reference models and their cached log-probs of pairs, which are the same in every epoch and every run.

The forward pass is in `models.scorer`; `scoring` lays out what is scored; `preference` passes the numbers to the loss.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoTokenizer

from sightline.errors import InputError
from sightline.losses.types import PairLogps, Requirement
from sightline.models.adapters import reference_mode
from sightline.models.device import to_device, uses_bfloat16
from sightline.models.encoding import SYSTEM_RULE
from sightline.models.loading import model_hash, weights_hash
from sightline.models.opening import open_model
from sightline.models.requests import ScoreRequest
from sightline.models.scorer import flat_logps
from sightline.models.soundness import check_adapter
from sightline.models.tensor_cache import content_key
from sightline.models.vlm import VLM, evaluating
from sightline.records.hashing import hash_file, hash_json
from sightline.records.rows import Pair
from sightline.train.scoring import Scoring, changed_tokens, stack_rows, sum_answers

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class PolicyWithoutAdapter:
    """The policy with its adapter off, at no memory cost. `identity` hashes everything that determines its numbers."""

    def __init__(self, policy: VLM) -> None:
        self._policy = policy
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        if self._identity is None:
            self._identity = model_hash(self._policy)
        return self._identity

    @contextlib.contextmanager
    def open(self) -> Iterator[VLM]:
        """The model in scoring mode: no dropout, no gradients."""
        with evaluating(self._policy), reference_mode(self._policy):  # the reference has no dropout either
            yield self._policy

    def close(self) -> None:
        """Nothing to free."""


class UntrainedPolicy:
    """The policy itself before its first step, for a run that trains it in full: its own reference at no memory cost.

    Everything must be scored before training. `identity` is that of the checkpoint, opened beside the policy.
    """

    def __init__(self, policy: VLM) -> None:
        self._policy = policy
        self.identity = ReferenceModel(policy, Path(policy.path)).identity

    @contextlib.contextmanager
    def open(self) -> Iterator[VLM]:
        """The model in scoring mode: no dropout, no gradients."""
        with evaluating(self._policy):
            yield self._policy

    def close(self) -> None:
        """Nothing to free."""


class ReferenceModel:
    """A checkpoint, with or without an adapter, beside the policy; it uses the policy's processor.

    `identity` hashes everything that determines its numbers. The checkpoint is loaded at first use.
    """

    def __init__(self, policy: VLM, model: Path, adapter: Path | None = None) -> None:
        self._policy, self._model, self._adapter = policy, model, adapter
        self._vlm: VLM | None = None
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        if self._identity is None:
            own = model_hash(replace(self._policy, path=str(self._model)))  # hashes the directory's files
            self._identity = own if self._adapter is None else hash_json([own, weights_hash(self._adapter)])
        return self._identity

    @contextlib.contextmanager
    def open(self) -> Iterator[VLM]:
        """The model in scoring mode: no dropout, no gradients."""
        if self._vlm is None:
            policy = self._policy
            place = {"name": str(self._model), "revision": None, "adapter": self._adapter}
            loaded = open_model(policy.spec.with_options(place), cache=policy.cache)
            self._vlm = replace(loaded, processor=policy.processor)
        with evaluating(self._vlm):
            yield self._vlm

    def close(self) -> None:
        """Free the model's memory until its next use."""
        self._vlm = None


FrozenModel = PolicyWithoutAdapter | UntrainedPolicy | ReferenceModel


def open_reference(policy: VLM, directory: Path) -> FrozenModel:
    """A reference beside the primary one: the directory of an adapter for the policy's model, or of a model.

    Raises:
        InputError: the directory is neither, the model has another family or tokenizer than the policy, or the adapter
            does not fit.
    """
    if (directory / ADAPTER_CONFIG).is_file():
        _check_adapter(policy, directory)
        return ReferenceModel(policy, Path(policy.path), directory)
    if not (directory / "config.json").is_file():
        raise InputError(f"references: {directory} is neither a model nor an adapter; give a directory that is one")
    kind = json.loads((directory / "config.json").read_text()).get("model_type")
    wanted = policy.base.config.model_type
    if kind != wanted:
        raise InputError(f"references: {directory} is a {kind!r} model and the policy a {wanted!r} model; remove it")
    try:
        known = AutoTokenizer.from_pretrained(directory).get_vocab()
    except (OSError, ValueError) as error:
        raise InputError(f"references: {directory} has no usable tokenizer; save the policy's there") from error
    if known != policy.tokenizer.get_vocab():
        raise InputError(
            f"references: the tokenizer of {directory} is not the policy's, so their log-probs cannot be compared; "
            "remove it"
        )
    return ReferenceModel(policy, directory)


def _check_adapter(policy: VLM, directory: Path) -> None:
    """Check that every matrix of the adapter has its layer in the policy's model, by name and width."""
    path = directory / ADAPTER_WEIGHTS
    if not path.is_file():
        raise InputError(f"references: {directory} has no {ADAPTER_WEIGHTS}; give an adapter that has it")
    bare = {name.replace(".base_layer", ""): module for name, module in policy.base.named_modules()}
    check_adapter(directory)
    with safe_open(str(path), "pt") as file:
        for name in file.keys():  # noqa: SIM118  # safe_open is no mapping
            layer, found, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
            if not found:
                continue
            module = bare.get(layer)
            width = file.get_slice(name).get_shape()[-1]
            if not isinstance(module, nn.Module) or getattr(module, "in_features", width) != width:
                raise InputError(
                    f"references: the adapter {directory} was made for another model than {policy.path} ({layer} of "
                    f"width {width}); remove it"
                )


class Reference:
    """Scores pairs with a frozen model, one pass per prefix with its answers.

    A pair's numbers thus depend on the pair only, to the last bit, and can be cached: with `keep` in memory, by the
    pair's id, and in the model's cache on disk, by content, for this run and any other on the same weights. Without
    `frozen` the model is the policy `vlm` with its adapter off.
    """

    def __init__(
        self, vlm: VLM, scoring: Scoring | None = None, *, autocast: bool, keep: bool, frozen: FrozenModel | None = None
    ) -> None:
        self._vlm = vlm
        self._scoring = scoring or Scoring()
        self._autocast, self._halved = autocast, uses_bfloat16(vlm, autocast)
        self._keep = keep
        self._frozen = frozen or PolicyWithoutAdapter(vlm)
        self._kept: dict[str, dict[str, float]] = {}
        self._scored: dict[str, dict[str, Tensor]] = {}  # only without a cache, and only until `keep`

    def __call__(self, pairs: Sequence[Pair]) -> PairLogps:
        """Reference log-probs of each pair, shape "pair", on the policy's device."""
        found = {pair.id: self._kept[pair.id] for pair in pairs if pair.id in self._kept}
        found |= {pair.id: self._numbers(pair) for pair in pairs if pair.id not in found}
        if self._keep:
            self._kept |= found
        return stack_rows([found[pair.id] for pair in pairs], self._vlm.device)

    def first_answer_sums(self, requests: Sequence[ScoreRequest]) -> Float[Tensor, "prefix"]:
        """The log-probability of each request's first answer, for answers that are not of a pair."""
        sums = torch.tensor([float(self._fetch(each)[0].sum()) for each in requests])
        return to_device(sums, self._vlm.device)

    def precompute(self, pairs: Sequence[Pair]) -> None:
        """Score all these pairs now, keep the numbers in memory and free the model's."""
        self._kept |= {pair.id: self._numbers(pair) for pair in pairs}
        self._frozen.close()

    @property
    def is_policy(self) -> bool:
        """Whether it scores with the policy's own weights."""
        return not isinstance(self._frozen, ReferenceModel)

    def requests(self, pair: Pair) -> list[ScoreRequest]:
        """What is scored of a pair, in as many passes."""
        return [group.scored for group in self._scoring.groups(pair)]

    def is_cached(self, scored: ScoreRequest) -> bool:
        """Whether a request was scored by this run, or by another on the same weights."""
        return self._scored_here(scored) or (
            self._vlm.cache is not None and self._vlm.cache.get(self._key(scored)) is not None
        )

    def score(self, scored: ScoreRequest, *, keep: bool) -> None:
        """Score a request, and keep the result for `numbers`."""
        found = self._score(scored)
        if keep and self._vlm.cache is not None:
            self._vlm.cache.put(self._key(scored), found)
        elif keep:
            self._scored[self._key(scored)] = found

    def numbers(self, pair: Pair) -> dict[str, float]:
        """The fields of `PairLogps` by name."""
        return self._numbers(pair)

    def keep(self, numbers: Mapping[str, dict[str, float]]) -> None:
        """Keep the numbers of pairs by their ids, and nothing else."""
        self._kept |= numbers
        self._scored.clear()

    def _scored_here(self, scored: ScoreRequest) -> bool:
        return bool(self._scored) and self._key(scored) in self._scored

    def _numbers(self, pair: Pair) -> dict[str, float]:
        """The fields of `PairLogps` by name."""
        groups = self._scoring.groups(pair)
        tokens = [dict(zip(group.fields, self._fetch(group.scored), strict=True)) for group in groups]
        changed = changed_tokens(self._vlm, pair) if Requirement.SPANS in self._scoring.needs else None
        return sum_answers(groups, tokens, changed)

    def _fetch(self, scored: ScoreRequest) -> list[Tensor]:
        """Log-probs of the tokens of each answer, on the CPU."""
        cache = self._vlm.cache
        if cache is None and self._scored_here(scored):
            logps = self._scored[self._key(scored)]
        else:
            logps = (
                self._score(scored) if cache is None else cache.fetch(self._key(scored), lambda: self._score(scored))
            )
        return [logps[f"{place:02d}"] for place in range(len(scored.answers))]

    def _score(self, scored: ScoreRequest) -> dict[str, Tensor]:
        with self._frozen.open() as vlm:
            values, mask = flat_logps(vlm, [scored], autocast=self._autocast)
        rows = zip(values.cpu(), mask.sum(-1).tolist(), strict=True)
        return {f"{place:02d}": row[:length] for place, (row, length) in enumerate(rows)}

    def _key(self, scored: ScoreRequest) -> str:
        prefix = scored.prefix
        pictures = [hash_file(Path(image)) + (" zeroed" if prefix.zeroed else "") for image in prefix.images]
        formats = (str(self._vlm.dtype), self._vlm.device.type, str(self._halved), torch.__version__)
        turns = [part for turn in prefix.history for part in (turn.role, turn.text)]
        counts = (len(turns), len(scored.answers), len(pictures))  # so that a turn is not mistaken for an answer
        # Under earlier rules, rows with system turns were rendered differently.
        rules = (SYSTEM_RULE,) if any(turn.role == "system" for turn in prefix.history) else ()
        texts = (*turns, prefix.prompt, *scored.answers, *prefix.media, *rules)
        return content_key("reference", self._frozen.identity, *formats, *counts, *texts, *pictures)
