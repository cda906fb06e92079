"""The world keeps its promises: disjoint splits, co-occurrence as configured, none in counter scenes, pure drawing."""

from collections import Counter

import numpy as np
import pytest

from sightline.lab.drawing import draw_object, render, render_with_owners
from sightline.lab.words import COLORS, COMPANION, KINDS, THEME_OF, THEMES, WorldConfig, favorite_color
from sightline.lab.world import (
    IMAGE_SIZE,
    SPLITS,
    Scene,
    SceneObject,
    sample_scene,
    scenes,
    theme_frequencies,
    theme_weights,
)

CONFIG = WorldConfig()
COUNT = 600


@pytest.fixture(scope="module")
def natural() -> list[Scene]:
    return list(scenes(CONFIG, "validation", COUNT))


@pytest.fixture(scope="module")
def counter() -> list[Scene]:
    return list(scenes(CONFIG, "counter-validation", COUNT))


def test_vocabulary() -> None:
    assert len(KINDS) == len(set(KINDS)) == 40
    assert len(THEMES) == 8
    assert all(COMPANION[COMPANION[kind]] == kind for kind in COMPANION)
    assert all(THEME_OF[kind] == THEME_OF[other] for kind, other in COMPANION.items())
    assert Counter(favorite_color(kind) for kind in KINDS) == dict.fromkeys(COLORS, 5)


@pytest.mark.parametrize("split", SPLITS)
def test_scene_is_a_function_of_its_arguments(split: str) -> None:
    assert sample_scene(CONFIG, split, 7) == sample_scene(CONFIG, split, 7)
    assert sample_scene(CONFIG, split, 7).objects != sample_scene(CONFIG, split, 8).objects
    assert sample_scene(CONFIG, split, 7).objects != sample_scene(WorldConfig(seed=1), split, 7).objects
    assert list(scenes(CONFIG, split, 2, start=7)) == [sample_scene(CONFIG, split, i) for i in (7, 8)]


def test_splits_share_no_scene() -> None:
    assert len({number for number, _ in SPLITS.values()}) == len(SPLITS)
    seen = Counter((s.theme, s.objects, s.look) for split in SPLITS for s in scenes(CONFIG, split, 60))
    assert seen.total() == len(seen) == 60 * len(SPLITS)


def test_objects_are_few_inside_and_visible(natural: list[Scene], counter: list[Scene]) -> None:
    for scene in natural + counter:
        assert 1 <= len(scene.objects) <= CONFIG.max_objects
        assert len({(o.kind, o.color) for o in scene.objects}) == len(scene.kinds)
        for i, one in enumerate(scene.objects):
            assert min(one.box) >= 0
            assert max(one.box) <= IMAGE_SIZE
            for other in scene.objects[:i]:
                width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
                height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
                smaller = min((o.box[2] - o.box[0]) ** 2 for o in (one, other))
                assert max(width, 0) * max(height, 0) <= (1 - CONFIG.min_visible) * smaller + 1e-9


def test_pixels_show_what_the_truth_says(natural: list[Scene]) -> None:
    """The bound holds for each pair of boxes; two neighbors together hide more than it allows in few scenes only."""
    shares = []
    for scene in natural[:120]:
        owners = render_with_owners(scene)[1]
        for number, item in enumerate(scene.objects, start=1):
            alpha = draw_object(item, 2).getchannel("A").reduce(2)
            shares.append((owners == number).sum() / (np.asarray(alpha) > 127).sum())
    assert min(shares) > 0.25
    assert np.mean(np.array(shares) >= CONFIG.min_visible - 0.03) >= 0.99


def test_natural_scenes_follow_their_theme(natural: list[Scene]) -> None:
    """An object is of the theme at first hand with `theme_share`, by chance else; companions keep to their theme."""
    of_theme = [THEME_OF[item.kind] == scene.theme for scene in natural for item in scene.objects]
    expected = CONFIG.theme_share + (1 - CONFIG.theme_share) * 5 / len(KINDS)
    assert np.mean(of_theme) == pytest.approx(expected, abs=0.03)
    first = Counter(scene.objects[0].kind for scene in natural if THEME_OF[scene.objects[0].kind] == scene.theme)
    for theme in THEMES:
        weights = theme_weights(CONFIG, theme)
        assert sum(weights.values()) == pytest.approx(1)
        total = sum(first[kind] for kind in weights)
        for kind, weight in weights.items():
            assert abs(first[kind] - total * weight) < 4 * np.sqrt(total * weight * (1 - weight))


def test_themes_have_a_long_tail(natural: list[Scene]) -> None:
    """Natural scenes follow the stated frequencies, which fall by `theme_decay`; unbiased scenes have no theme."""
    frequencies = theme_frequencies(CONFIG)
    assert sum(frequencies.values()) == pytest.approx(1)
    assert frequencies["street"] == pytest.approx(CONFIG.theme_decay * frequencies["kitchen"])
    found = Counter(scene.theme for scene in natural)
    for theme, share in frequencies.items():
        assert abs(found[theme] - len(natural) * share) < 4 * np.sqrt(len(natural) * share * (1 - share))


def test_companions_come_together(natural: list[Scene]) -> None:
    """Given a kind, its companion is there in about 4 of 5 scenes: 10 times chance, twice another kind of the theme."""
    base = {kind: np.mean([kind in scene.kinds for scene in natural]) for kind in KINDS}
    together, chance, others = [], [], []
    for scene in natural:
        for kind in scene.kinds & COMPANION.keys() if len(scene.objects) > 1 else ():
            together.append(COMPANION[kind] in scene.kinds)
            chance.append(base[COMPANION[kind]])
            others += [o in scene.kinds for o in THEMES[THEME_OF[kind]] if o not in (kind, COMPANION[kind])]
    assert np.mean(together) > 0.7
    assert np.mean(together) > 5 * np.mean(chance)
    assert np.mean(together) > 1.7 * np.mean(others)


def test_counter_scenes_break_co_occurrence(counter: list[Scene]) -> None:
    for scene in counter:
        assert len({THEME_OF[kind] for kind in scene.kinds}) == len(scene.kinds)
        assert not any(COMPANION.get(kind) in scene.kinds for kind in scene.kinds)
        assert THEME_OF[scene.objects[0].kind] == scene.theme


def test_unbiased_scenes_show_all_kinds_evenly() -> None:
    found = Counter(item.kind for scene in scenes(CONFIG, "probe", COUNT) for item in scene.objects)
    mean = found.total() / len(KINDS)
    assert all(0.5 * mean < found[kind] < 1.6 * mean for kind in KINDS)


def test_favorite_colors(natural: list[Scene]) -> None:
    share = np.mean([item.color == favorite_color(item.kind) for scene in natural for item in scene.objects])
    assert share == pytest.approx(CONFIG.favorite + (1 - CONFIG.favorite) / len(COLORS), abs=0.04)


def test_rendering_is_deterministic(natural: list[Scene]) -> None:
    for scene in natural[:5]:
        one, again = render(scene), render(scene)
        assert (one.mode, one.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
        assert one.tobytes() == again.tobytes()
    assert len({render(scene).tobytes() for scene in natural[:20]}) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_not_one_bitmap(kind: str) -> None:
    """Eight looks of one kind, color and size differ pairwise in at least 3 % of their pixels, by more than noise."""
    item = [SceneObject(kind, "blue", "medium", (0, 0, 28, 28), look) for look in range(8)]
    tiles = [np.asarray(draw_object(one, 2), dtype=int) for one in item]
    for i, one in enumerate(tiles):
        for other in tiles[:i]:
            assert (np.abs(one - other).max(axis=-1) > 32).mean() > 0.03
