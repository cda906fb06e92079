"""Frozen models that a policy is measured against: itself without its adapter, or another checkpoint or adapter.

It opens and checks them; what they say of pairs is `reference`. A model of its own is loaded when it is first asked and
can be let go of again.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import AutoTokenizer

from sightline.errors import InputError
from sightline.models.adapters import reference_mode
from sightline.models.loading import content_of, load_vlm, weights_hash
from sightline.models.soundness import check_adapter
from sightline.models.vlm import VLM, evaluating
from sightline.records.hashing import hash_json

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class WithoutAdapter:
    """The policy with its adapter off, which costs no memory. `identity` is a hash of all that decides its numbers."""

    def __init__(self, policy: VLM) -> None:
        self._policy = policy
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        if self._identity is None:
            self._identity = content_of(self._policy)
        return self._identity

    @contextlib.contextmanager
    def opened(self) -> Iterator[VLM]:
        """The model, ready to score: no dropout, no gradients."""
        with evaluating(self._policy), reference_mode(self._policy):  # the reference has no dropout of its own either
            yield self._policy

    def close(self) -> None:
        """There is nothing to free."""


class OtherModel:
    """A checkpoint, with or without an adapter, beside the policy; it reads with the policy's own processor.

    `identity` is a hash of all that decides its numbers. It is loaded when first asked.
    """

    def __init__(self, policy: VLM, model: Path, adapter: Path | None = None) -> None:
        self._policy, self._model, self._adapter = policy, model, adapter
        self._vlm: VLM | None = None
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        if self._identity is None:
            own = content_of(replace(self._policy, path=str(self._model)))  # hashes the directory's files
            self._identity = own if self._adapter is None else hash_json([own, weights_hash(self._adapter)])
        return self._identity

    @contextlib.contextmanager
    def opened(self) -> Iterator[VLM]:
        """The model, ready to score: no dropout, no gradients."""
        if self._vlm is None:
            policy = self._policy
            dtype = str(policy.dtype).removeprefix("torch.")
            made = load_vlm(
                self._model, adapter=self._adapter, device=str(policy.device), dtype=dtype, cache=policy.cache
            )
            self._vlm = replace(made, processor=policy.processor)
        with evaluating(self._vlm):
            yield self._vlm

    def close(self) -> None:
        """Free its memory until it is asked again."""
        self._vlm = None


Frozen = WithoutAdapter | OtherModel


def further_reference(policy: VLM, directory: Path) -> Frozen:
    """A reference beside the primary one: the directory of an adapter for the policy's model, or of a model.

    Raises:
        InputError: it is neither, of another family or tokenizer than the policy, or an adapter that does not fit.
    """
    if (directory / ADAPTER_CONFIG).is_file():
        _check_adapter(policy, directory)
        return OtherModel(policy, Path(policy.path), directory)
    if not (directory / "config.json").is_file():
        raise InputError(f"references: {directory} is neither a model nor an adapter; name a directory that is one")
    kind = json.loads((directory / "config.json").read_text()).get("model_type")
    wanted = policy.base.config.model_type
    if kind != wanted:
        raise InputError(f"references: {directory} is a {kind!r} model and the policy a {wanted!r}; leave it out")
    try:
        known = AutoTokenizer.from_pretrained(directory).get_vocab()
    except (OSError, ValueError) as error:
        raise InputError(f"references: {directory} has no usable tokenizer; save the policy's there") from error
    if known != policy.tokenizer.get_vocab():
        raise InputError(
            f"references: the tokenizer of {directory} is not the policy's, so their log-probs cannot be compared; "
            "leave it out"
        )
    return OtherModel(policy, directory)


def _check_adapter(policy: VLM, directory: Path) -> None:
    """Whether every matrix of the adapter has its layer in the policy's model, by name and width."""
    path = directory / ADAPTER_WEIGHTS
    if not path.is_file():
        raise InputError(f"references: {directory} has no {ADAPTER_WEIGHTS}; name an adapter that has")
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
                    f"width {width}); leave it out"
                )
