"""The stage `sightline match read`: one split of labeled pairs as samples, for training or the benchmark `matching`.

The prompt is the paper's training prompt and the reference is the label; `sightline match explain` adds explanations.
The samples are ordered so that every prefix of the file has the overall share of matches.
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
    detect_layout,
    stratify,
    take_split,
)
from sightline.recipes.matching.entities.pairs import EntityPair, make_sample, read_pair
from sightline.recipes.matching.entities.rule import StringRule, learn_rule, write_rule
from sightline.records.manifest import Manifest, Stage


class ReadConfig(Config):
    """The pairs to read, and the noun for their records.

    `shares` and `split_seed` split a file without splits into train, valid and test.
    """

    split: Split = Field(description="the split to read")
    layout: Name | Literal["auto"] = Field(
        default="auto", description="layout of the files; auto: recognized by their names and columns"
    )
    noun: str = Field(default="entity", min_length=1, description="what a record is, such as product or publication")
    fields: tuple[str, ...] = Field(default=(), description="attributes to show, in order; empty: all")
    named: str = Field(default="", description="part of the file name, if WDC has several files for a split")
    count: int | None = Field(
        default=None,
        ge=1,
        description="pairs to keep, with the split's share of matches, drawn by the command's seed; null: all",
    )
    shares: tuple[int, int, int] = Field(
        default=(3, 1, 1), description="shares of train, valid and test in a file without splits"
    )
    split_seed: int = Field(default=0, description="seed of that split")
    rule_from: Path | None = Field(
        default=None, description="samples of `match read` to learn the string rule from that `matching` reports"
    )

    @model_serializer(mode="wrap")
    def _without_rule(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `rule_from` if there is no rule, as before rules existed."""
        plain: dict[str, Any] = write(self)
        return {key: value for key, value in plain.items() if key != "rule_from" or value is not None}


def read_entities(place: Path, config: ReadConfig, seed: int, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the samples of a split.

    Raises:
        InputError: no or an unknown layout, a row that breaks it, an unknown field, fewer pairs than `count`, or no
            pair to learn a rule from.
    """
    layout = LAYOUTS[detect_layout(place) if config.layout == "auto" else config.layout]
    source = EntitySource(place, config.split, config.named)
    pairs = list(layout.read(source))  # before the directory is claimed, so that it can be reused after an error
    if not layout.is_split:
        pairs = take_split(pairs, config.split, config.shares, config.split_seed)
    _check_pairs(pairs, config, place)
    rule = None if config.rule_from is None else _learn(config.rule_from)
    inputs = {f"rows_{number}": path for number, path in enumerate(layout.files(source))}
    if config.rule_from is not None:
        inputs["rule_from"] = config.rule_from
    stage = Stage.open(out, "match read", config, inputs, seed)
    if stage.done:
        return stage.manifest
    attributes = {"noun": config.noun, "fields": config.fields}
    chosen = stratify(pairs, seed)[: config.count]
    samples = (make_sample(pair.model_copy(update=attributes)) for pair in chosen)
    write_samples(out, with_progress(samples, progress, len(chosen)))
    if rule is not None:
        write_rule(rule, out)
    numbers = {} if rule is None else {"rule_threshold": rule.threshold, "rule_f1_on_its_rows": rule.f1}
    counts = {"samples": len(chosen), "matches": sum(pair.match for pair in chosen)}
    return stage.finish(counts=counts, numbers=numbers)


def _learn(place: Path) -> StringRule:
    path = samples_file(place)
    pairs = [read_pair(sample, str(path)) for sample in read_samples(place)]
    if not any(pair.match for pair in pairs):
        raise InputError(f"{path} holds no matching pair, so no string rule can be learned; read more rows")
    return learn_rule(pairs)


def _check_pairs(pairs: list[EntityPair], config: ReadConfig, place: Path) -> None:
    known = dict.fromkeys(name for pair in pairs for name in (*pair.left, *pair.right))
    strange = [name for name in config.fields if name not in known]
    if pairs and strange:
        raise InputError(f"{place}: fields names {strange[0]!r}; the attributes are {', '.join(known)}")
    if len(pairs) < (config.count or 1):
        raise InputError(
            f"{place}: {config.split} has {len(pairs)} pairs, but {config.count or 1} are needed; lower count, or "
            "read another split"
        )
    for pair in pairs:
        shown = pair.model_copy(update={"fields": config.fields})
        if not all(shown.texts):
            raise InputError(
                f"{place}: pair {shorten(pair.id)} has a record without any value; choose other fields or drop it"
            )
