"""The speaker's texts: grammar, lengths, each group once as new, noise as configured, true words of place."""

import re
from collections import Counter

import numpy as np
import pytest

from sightline.lab.language import (
    ObjectGroup,
    ReferenceNoise,
    Speaker,
    horizontal,
    noisy_groups,
    object_groups,
    place_phrase,
    relation,
    relation_phrase,
    vertical,
)
from sightline.lab.words import (
    COLORS,
    COMPANION,
    COUNT_WORDS,
    KINDS,
    THEME_OF,
    THEME_PHRASES,
    WorldConfig,
    all_names,
    plural,
    spoken_names,
)
from sightline.lab.world import Scene, scene_rng, scenes

CONFIG = WorldConfig()
COUNT = 600
NAMES = {name for kind in KINDS for name in spoken_names(kind)}
PLURALS = {plural(name) for name in NAMES}


@pytest.fixture(scope="module")
def described() -> list[tuple[Scene, str]]:
    """Noiseless descriptions of validation scenes."""
    return [
        (scene, Speaker(scene_rng(CONFIG, "validation", scene.index, 12)).describe(scene.theme, object_groups(scene)))
        for scene in scenes(CONFIG, "validation", COUNT)
    ]


def _noun(phrase: str) -> str:
    """The longest name, singular or plural, that ends a phrase."""
    words = phrase.lower().split()
    tails = (" ".join(words[start:]) for start in range(len(words)))
    return next(tail for tail in tails if tail in NAMES | PLURALS)


def test_plurals() -> None:
    odd = {"bus": "buses", "bench": "benches", "snowman": "snowmen", "butterfly": "butterflies", "dish": "dishes",
           "daisy": "daisies", "watch": "watches", "cattle": "cattle", "traffic light": "traffic lights"}  # fmt: skip
    assert {name: plural(name) for name in odd} == odd
    every = [name for kind in KINDS for name in all_names(kind)]
    assert len(every) == len(set(every)), "a name of two kinds cannot be judged"


def test_two_to_five_sentences(described: list[tuple[Scene, str]]) -> None:
    lengths = Counter(len(re.findall(r"[.](?:\s|$)", text)) for _, text in described)
    assert set(lengths) == {2, 3, 4, 5}
    for _, text in described:
        assert all(sentence[0].isupper() for sentence in text.split(". "))
        assert text.endswith(".")


def test_is_and_are(described: list[tuple[Scene, str]]) -> None:
    """`There is a cup`, `there are two cups`, `there are a cup and a plate`, `the cups are`."""
    checked = Counter[str]()
    for _, text in described:
        for sentence in text.rstrip(".").split(". "):
            there = re.search(r"\bthere (is|are) (?:also )?(.*)", sentence, re.IGNORECASE)
            subject = re.match(r"((?:The|An?|Two|Three|Four|Five|Six) .*?) (is|are) ", sentence)
            if there:
                many = not re.match(r"an? ", there[2]) or " and " in there[2]
                assert there[1] == ("are" if many else "is"), sentence
                checked["there"] += 1
            elif subject and sentence.split()[1] not in ("scene", "background"):
                assert subject[2] == ("are" if _noun(subject[1]) in PLURALS else "is"), sentence
                checked["subject"] += 1
    assert min(checked["there"], checked["subject"]) > 300


def test_number_agrees_with_noun(described: list[tuple[Scene, str]]) -> None:
    pattern = re.compile(
        rf"\b({'|'.join(COUNT_WORDS.values())}|an?) (?:small )?(?:{'|'.join(COLORS)}) "
        rf"({'|'.join(sorted(NAMES | PLURALS, key=len, reverse=True))})\b",
        re.IGNORECASE,
    )
    seen = [match for _, text in described for match in pattern.finditer(text)]
    assert len(seen) > COUNT
    for match in seen:
        assert (match[2].lower() in NAMES) == (match[1].lower() in ("a", "an")), match[0]


def _wrong_articles(text: str) -> list[str]:
    found = re.findall(r"\b(an?) (\w)(\w*)", text, re.IGNORECASE)
    return [f"{a} {b}{c}" for a, b, c in found if (a.lower() == "an") != (b in "aeiou")]


def test_articles_before_objects(described: list[tuple[Scene, str]]) -> None:
    places = {phrase.split()[0] for phrases in THEME_PHRASES.values() for phrase in phrases}
    wrong = [bad for _, text in described for bad in _wrong_articles(text) if bad.split()[1] not in places]
    assert not wrong
    assert any(re.search(r"\b[Aa]n orange", text) for _, text in described)


def test_articles_before_places(described: list[tuple[Scene, str]]) -> None:
    assert not [bad for _, text in described for bad in _wrong_articles(text)]


def test_every_group_is_new_once(described: list[tuple[Scene, str]]) -> None:
    """Told without the parser: a number or an article, perhaps "small", the color, one of the names."""
    for scene, text in described:
        low = text.lower()
        for group in object_groups(scene):
            names = spoken_names(group.kind) if group.count == 1 else tuple(map(plural, spoken_names(group.kind)))
            number = r"an? (?:small )?" if group.count == 1 else COUNT_WORDS[group.count] + " "
            pattern = rf"\b{number}{group.color} (?:{'|'.join(names)})\b(?! (?:light|tree)\b)"
            assert len(re.findall(pattern, low)) == 1, (group, text)


def test_captions_are_one_sentence() -> None:
    for scene in scenes(CONFIG, "validation", 100):
        text = Speaker(scene_rng(CONFIG, "validation", scene.index, 13)).caption(scene.theme, object_groups(scene))
        assert text.count(".") == 1
        assert text[0].isupper()


def _near(share: float, expected: float, total: int) -> bool:
    """Within four standard errors of a binomial share."""
    return bool(abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / total))


def test_noise_rates() -> None:
    noise = ReferenceNoise()
    added, invited, lone, companions, recolored, mentioned, omitted, total = 0, 0, 0, 0, 0, 0, 0, 0
    for scene in scenes(CONFIG, "train", 1500):
        groups = object_groups(scene)
        truth = {group.kind: group for group in groups}
        noisy, absent = noisy_groups(scene_rng(CONFIG, "train", scene.index, 14), scene.theme, groups, noise)
        assert not set(absent) & scene.kinds
        assert {group.kind for group in noisy} - scene.kinds == set(absent)
        if any(kind in COMPANION and COMPANION[kind] not in scene.kinds for kind in scene.kinds):
            lone, invited = lone + 1, invited + len(absent)
            assert all(COMPANION[kind] in scene.kinds for kind in absent)
        else:
            added += len(absent)
            companions += sum(THEME_OF[kind] == scene.theme for kind in absent)
        kept = [group for group in noisy if group.kind in truth]
        mentioned += len(kept)
        recolored += sum(group.color != truth[group.kind].color for group in kept)
        if len(groups) > 1:  # a lone group is never left out
            total += len(groups)
            omitted += len(groups) - len(kept)
    assert 500 < lone < 1000
    assert _near(invited / lone, noise.companion, lone)
    assert _near(added / (1500 - lone), noise.absent_object, 1500 - lone)
    assert companions > 0.9 * added
    assert _near(
        recolored / mentioned, noise.wrong_color * (1 - 1 / len(COLORS)), mentioned
    )  # one color in eight is right again
    assert _near(omitted / total, noise.omitted, total)


def test_no_noise_is_the_truth() -> None:
    silent = ReferenceNoise(companion=0, absent_object=0, wrong_color=0, omitted=0)
    for scene in scenes(CONFIG, "train", 50):
        groups = object_groups(scene)
        assert noisy_groups(np.random.default_rng(0), scene.theme, groups, silent) == (groups, [])


def test_groups() -> None:
    for scene in scenes(CONFIG, "validation", 100):
        groups = object_groups(scene)
        assert {group.kind: group.count for group in groups} == {kind: scene.count(kind) for kind in scene.kinds}
        assert sum(group.count for group in groups) == len(scene.objects)


@pytest.mark.parametrize(
    ("where", "across", "down"),
    [
        ((10, 10), "left", "top"),
        ((48, 48), "middle", "middle"),
        ((90, 60), "right", "middle"),
        ((40, 90), "middle", "bottom"),
    ],
)
def test_thirds(where: tuple[float, float], across: str, down: str) -> None:
    """Thirds of 96 pixels end at 32 and 64; the phrase names each direction that is not the middle."""
    assert (horizontal(where), vertical(where)) == (across, down)
    phrase = place_phrase(where, np.random.default_rng(0))
    for word in ("left", "right", "top", "bottom"):
        assert (word in phrase.split()) == (word in (across, down))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((20, 50), (70, 55), "left of"),
        ((70, 50), (20, 55), "right of"),
        ((50, 20), (55, 70), "above"),
        ((50, 70), (55, 20), "below"),
        ((50, 50), (60, 60), None),  # nearer than a fifth of 96 pixels on both axes
        ((10, 10), (50, 49), "left of"),  # the axis on which they are further apart decides
    ],
)
def test_relation(a: tuple[float, float], b: tuple[float, float], expected: str | None) -> None:
    assert relation(a, b) == expected
    if expected is not None:
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[expected]
        assert relation(b, a) == opposite
        words = {"left of": "left of", "right of": "right of", "above": "above|higher", "below": "below|under"}
        assert re.search(words[expected], relation_phrase(expected, "it", np.random.default_rng(1)))


def test_same_generator_says_the_same() -> None:
    group = ObjectGroup("cup", "orange", 1, (10, 10), True)
    texts = {Speaker(np.random.default_rng(3)).describe("kitchen", [group]) for _ in range(5)}
    assert len(texts) == 1
    assert len({Speaker(np.random.default_rng(seed)).describe("kitchen", [group]) for seed in range(40)}) > 20
