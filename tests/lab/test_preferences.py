"""Wishes: every rule by hand, and that what is told follows its wish, breaks the opposite one and stays true."""

import numpy as np
import pytest

from sightline.lab.oracle import mistakes
from sightline.lab.parser import judge, parse_claims
from sightline.lab.wishes import (
    FAMILIES,
    TRAINED,
    UNSEEN_KINDS,
    WORDINGS,
    Rule,
    describe_by_rules,
    draw_contrast,
    follows,
    parse_rules,
    remove_colors,
)
from sightline.lab.words import KINDS, WorldConfig
from sightline.lab.world import sample_scene


@pytest.mark.parametrize(
    ("rule", "text", "kept"),
    [
        ("short", "A red cup.", True),
        ("short", "A red cup. It is small.", False),
        ("long", "One. Two. Three! Four?", True),
        ("long", "One. Two. Three.", False),
        ("colors", "A red cup and a blue plate. The cup is small.", True),
        ("colors", "A red cup and a plate.", False),
        ("colors", "The scene is calm.", False),
        ("plain", "A cup and a plate.", True),
        ("plain", "A cup that is Red.", False),
        ("count", "There are two objects. A cup.", True),
        ("count", "A cup. There are two objects.", False),
        ("no-count", "There are two cups.", True),
        ("no-count", "A cup. There is one object.", False),
        ("cheerful", "A cup!", True),
        ("sober", "A cup!", False),
        ("short", "  ", False),
        ("plain", "", False),
    ],
)
def test_rules_by_hand(rule: str, text: str, kept: bool) -> None:
    assert follows(Rule(rule), text) is kept


def test_a_rule_about_an_object_knows_its_other_names() -> None:
    assert not follows(Rule("avoid", "cup"), "A red mug.") and follows(Rule("mention", "cup"), "A red mug.")
    assert follows(Rule("avoid", "cup"), "A red plate.") and not follows(Rule("mention", "cup"), "A red plate.")


def test_every_wording_is_read_back_and_no_two_are_alike() -> None:
    for name, wordings in WORDINGS.items():
        for wording in wordings:
            kind = "stop sign" if "{kind}" in wording else ""
            assert parse_rules(f"You describe pictures. {wording.format(kind=kind)}") == [Rule(name, kind)]
    assert len({wording for wordings in WORDINGS.values() for wording in wordings}) == sum(map(len, WORDINGS.values()))
    assert {rule for pair in FAMILIES.values() for rule in pair} == set(WORDINGS)


def test_colors_go_and_articles_are_mended() -> None:
    assert remove_colors("An orange cup and a blue umbrella. Two red cups. A black igloo is here.") == (
        "A cup and an umbrella. Two cups. An igloo is here."
    )


def test_what_is_told_follows_breaks_the_opposite_and_is_true() -> None:
    description = set[str]()
    for index in range(150):
        scene, rng = sample_scene(WorldConfig(), "preference", index), np.random.default_rng(index)
        contrast = draw_contrast(rng, scene)
        if contrast is None:
            continue
        for wish, other in ((contrast.wanted, contrast.against), (contrast.against, contrast.wanted)):
            ((rule,), (opposite,)) = parse_rules(wish), parse_rules(other)
            text = describe_by_rules(rng, scene, [rule])
            assert text is not None and follows(rule, text) and not follows(opposite, text)
            assert mistakes(judge(parse_claims(text), scene)) == 0, text
            description.add(rule.name)
    assert description == {rule for family in TRAINED for rule in FAMILIES[family]}


def test_what_contradicts_itself_or_leaves_nothing_is_not_told() -> None:
    scene = sample_scene(WorldConfig(), "preference", 0)
    rng = np.random.default_rng(0)
    assert describe_by_rules(rng, scene, [Rule("short"), Rule("long")]) is None
    assert describe_by_rules(rng, scene, [Rule("avoid", kind) for kind in KINDS]) is None


@pytest.mark.parametrize("unseen", ["", "object", "wording", "rule"])
def test_training_and_test_share_no_unseen_wish(unseen: str) -> None:
    trained = {wording for family in TRAINED for rule in FAMILIES[family] for wording in WORDINGS[rule][:-1]}
    allowed = {w.format(kind=kind) for w in trained for kind in ({*KINDS} - UNSEEN_KINDS if "{kind}" in w else {""})}
    for index in range(120):
        scene = sample_scene(WorldConfig(), "test", index)
        contrast = draw_contrast(np.random.default_rng(index), scene, unseen=unseen)
        if contrast is not None:
            assert ({contrast.wanted, contrast.against} <= allowed) is (not unseen)
            assert not unseen or not {contrast.wanted, contrast.against} & allowed
