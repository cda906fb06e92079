"""The string rule: its threshold by hand, and the key of a config without one."""

from pathlib import Path

import pytest

from sightline.config import load_config
from sightline.errors import InputError
from sightline.recipes.matching.entities.reading import ReadConfig, read_entities
from sightline.recipes.matching.entities.rule import learn_rule, likeness
from tests.data.entities.rows import pair, write_deepmatcher


def test_the_threshold_lies_in_the_widest_gap_with_the_best_f1() -> None:
    """Trigrams of " ab " are " ab" and "ab "; "abcd" shares one of two and four, "xy" none: 1, 2 / 6, 0.

    A match at 1 and one at 1/3 above a pair that does not match at 0: the middle of 1/3 and 0.
    """
    pairs = [
        pair({"t": "ab"}, {"t": "ab"}, match=True),
        pair({"t": "ab"}, {"t": "abcd"}, match=True),
        pair({"t": "ab"}, {"t": "xy"}, match=False),
    ]
    assert [likeness(one) for one in pairs] == pytest.approx([1.0, 1 / 3, 0.0])
    rule = learn_rule(pairs)
    assert (rule.threshold, rule.rows, rule.f1) == pytest.approx((1 / 6, 3, 1.0))
    assert [rule.matches(one) for one in pairs] == [True, True, False]


def test_equal_likenesses_are_not_parted() -> None:
    """One of two equal pairs matches: yes to both has 2 / 3, and no threshold has more."""
    pairs = [pair({"t": "ab"}, {"t": "ab"}, match=match) for match in (True, False)]
    rule = learn_rule([*pairs, pair({"t": "ab"}, {"t": "xy"}, match=False)])
    assert rule.f1 == pytest.approx(2 / 3) and 0 < rule.threshold < 1


def test_a_config_without_a_rule_has_the_key_that_it_had() -> None:
    """Directories of before go on."""
    read_config = load_config(ReadConfig, None, ["split=test"])
    assert "rule_from" not in read_config.model_dump(mode="json")
    assert load_config(ReadConfig, None, ["split=test", "rule_from=x"]).model_dump(mode="json")["rule_from"] == "x"


def test_rows_without_a_match_teach_no_rule(tmp_path: Path) -> None:
    folder = write_deepmatcher(tmp_path / "dm", "test")
    read_entities(folder, load_config(ReadConfig, None, ["split=test", "count=1"]), 0, tmp_path / "one")
    path = tmp_path / "one" / "samples.jsonl"
    path.write_text(path.read_text().replace('"match":true', '"match":false'))
    read_config = load_config(ReadConfig, None, ["split=test", f"rule_from={path}"])
    with pytest.raises(InputError, match="holds no matching pair"):
        read_entities(folder, read_config, 0, tmp_path / "two")
