"""The stage `sightline match read`: one split of labelled pairs as samples, to train on or to ask in `matching`.

The prompt is the paper's training prompt and the reference its label; explanations are added by `sightline match
explain`. The samples stand in an order in which every beginning has the share of matches that all have.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from sightline.config import Config
from sightline.config.problems import shorten
from sightline.data.samples import read_samples, samples_file, write_samples
from sightline.data.terminal import Progress, with_progress
from sightline.errors import InputError
from sightline.recipes.matching.entities.layouts import (
    LAYOUTS,
    EntitySource,
    Name,
    Split,
    layout_of,
    split_of,
    stratified,
)
from sightline.recipes.matching.entities.pairs import EntityPair, pair_of, sample_of
from sightline.recipes.matching.entities.rule import StringRule, learn_rule, write_rule
from sightline.records.manifest import Manifest, Stage


class ReadConfig(Config):
    """Which pairs, and what they are called.

    `shares` and `split_seed` cut a file that ships no split into train, valid and test. `count` keeps so many, of
    matches and others the share that the split has, drawn by the command's seed.
    """

    split: Split
    layout: Name | Literal["auto"] = "auto"
    noun: str = Field(default="entity", min_length=1, description="what the records are: product, publication, ...")
    fields: tuple[str, ...] = Field(default=(), description="attributes that are told, in order; empty: all")
    named: str = Field(default="", description="part of the file's name, where WDC has several of a split")
    count: int | None = Field(default=None, ge=1)
    shares: tuple[int, int, int] = (3, 1, 1)
    split_seed: int = 0
    rule_from: Path | None = Field(
        default=None, description="samples of `match read` to learn the string rule on that `matching` shows"
    )

    @model_serializer(mode="wrap")
    def _without_rule(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A config that learns no rule has the key that it had before there were rules."""
        plain: dict[str, Any] = write(self)
        return {key: value for key, value in plain.items() if key != "rule_from" or value is not None}


def read_entities(place: Path, config: ReadConfig, seed: int, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the samples of a split.

    Raises:
        InputError: no or an unknown layout, a row that breaks it, an unknown field, fewer pairs than `count`, or no
            pair to learn a rule on.
    """
    layout = LAYOUTS[layout_of(place) if config.layout == "auto" else config.layout]
    source = EntitySource(place, config.split, config.named)
    pairs = list(layout.read(source))  # before the directory is claimed: after a mistake the same one can be given
    if not layout.is_split:
        pairs = split_of(pairs, config.split, config.shares, config.split_seed)
    _refuse(pairs, config, place)
    rule = None if config.rule_from is None else _learned(config.rule_from)
    inputs = {f"rows_{number}": path for number, path in enumerate(layout.files(source))}
    if config.rule_from is not None:
        inputs["rule_from"] = config.rule_from
    stage = Stage.open(out, "match read", config, inputs, seed)
    if stage.done:
        return stage.manifest
    told = {"noun": config.noun, "fields": config.fields}
    chosen = stratified(pairs, seed)[: config.count]
    samples = (sample_of(pair.model_copy(update=told)) for pair in chosen)
    write_samples(out, with_progress(samples, progress, len(chosen)))
    if rule is not None:
        write_rule(rule, out)
    numbers = {} if rule is None else {"rule_threshold": rule.threshold, "rule_f1_on_its_rows": rule.f1}
    counts = {"samples": len(chosen), "matches": sum(pair.match for pair in chosen)}
    return stage.finish(counts=counts, numbers=numbers)


def _learned(place: Path) -> StringRule:
    path = samples_file(place)
    pairs = [pair_of(sample, str(path)) for sample in read_samples(place)]
    if not any(pair.match for pair in pairs):
        raise InputError(f"{path} holds no pair that matches, so that no string rule can be learned; read more rows")
    return learn_rule(pairs)


def _refuse(pairs: list[EntityPair], config: ReadConfig, place: Path) -> None:
    known = dict.fromkeys(name for pair in pairs for name in (*pair.left, *pair.right))
    strange = [name for name in config.fields if name not in known]
    if pairs and strange:
        raise InputError(f"{place}: fields names {strange[0]!r}; the attributes are {', '.join(known)}")
    if len(pairs) < (config.count or 1):
        raise InputError(
            f"{place}: {config.split} has {len(pairs)} pairs and {config.count or 1} are wanted; lower count, or "
            "read another split"
        )
    for pair in pairs:
        told = pair.model_copy(update={"fields": config.fields})
        if not all(told.texts):
            raise InputError(
                f"{place}: pair {shorten(pair.id)} has a record without any value; name other fields or drop it"
            )
