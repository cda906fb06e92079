"""Structured explanations: format, importance computed by hand, and rejected replies."""

import pytest

from sightline.config import load_config
from sightline.errors import InputError
from sightline.recipes.matching.explaining import ExplainConfig, format_explanation
from sightline.recipes.matching.structured import (
    ComparedAttribute,
    Means,
    attribute_means,
    compare_strings,
    read_structured,
)
from tests.data.entities.rows import pair

LINE = "attribute=title|||importance=0.5|||values=Lumo LX-20###LUMO lamp|||similarity=0.75"


def explain_config(*words: str) -> ExplainConfig:
    return load_config(ExplainConfig, None, ["format=structured", "annotator=null", *words])


def test_a_reply_is_read_and_written_again() -> None:
    found = read_structured(f"\n{LINE}\n  attribute=price|||importance=-1|||values=20###missing|||similarity=0\n")
    assert found == [
        ComparedAttribute("title", 0.5, "Lumo LX-20", "LUMO lamp", 0.75),
        ComparedAttribute("price", -1.0, "20", "missing", 0.0),
    ]
    assert format_explanation(found[:1], explain_config()) == (
        "attribute=title|||importance=0.50|||values=Lumo LX-20###LUMO lamp|||similarity=0.75"
    )
    assert format_explanation(found[:1], explain_config("importance=false")) == (
        "attribute=title|||values=Lumo LX-20###LUMO lamp|||similarity=0.75"
    )
    assert format_explanation(found, explain_config("importance=false", "similarity=false")) == (
        "attribute=title|||values=Lumo LX-20###LUMO lamp\nattribute=price|||values=20###missing"
    )


@pytest.mark.parametrize(
    "reply",
    [
        "",
        f"Here you are:\n{LINE}",
        LINE.replace("0.75", "1.2"),
        LINE.replace("0.5|", "-1.5|"),
        LINE.replace("0.5|", "0.5.1|"),
        LINE.replace("###", " / "),
        LINE.replace("|||similarity=0.75", ""),
    ],
)
def test_what_breaks_the_form_or_a_range_is_none(reply: str) -> None:
    assert read_structured(reply) is None


def test_importance_by_hand() -> None:
    """Means 0.9 and 0.3: the middle is 0.6; from 0.3 to 0.9 importance goes from -0.6 to 0.6, and no further."""
    means = Means(matching=0.9, other=0.3)
    importances = {alike: round(means.importance(alike), 9) for alike in (0.0, 0.3, 0.45, 0.6, 0.9, 1.0)}
    assert importances == {0.0: -0.6, 0.3: -0.6, 0.45: -0.3, 0.6: 0.0, 0.9: 0.6, 1.0: 0.6}
    assert Means(matching=0.4, other=0.4).importance(1.0) == 0.0 == Means(matching=0.2, other=0.4).importance(0.1)


def test_explanations_of_strings_by_hand() -> None:
    """Titles are equal in the match and share 1 of 5 trigrams else: means 1 and 0.4. Prices are never there twice."""
    rows = [
        pair({"title": "ab", "price": "3"}, {"title": "AB", "price": ""}, match=True),
        pair({"title": "ab", "price": ""}, {"title": "abc", "price": "4"}, match=False),
    ]
    means = attribute_means(rows)
    assert list(means) == ["title"] and means["title"].matching == 1.0
    assert means["title"].other == pytest.approx(0.4)
    first, second = (compare_strings(row, means) for row in rows)
    assert [one.importance for one in first] == [pytest.approx(0.6), 0.0]
    assert second[0].importance == pytest.approx(-0.6) and second[0].similarity == pytest.approx(0.4)
    assert format_explanation(first, explain_config()) == (
        "attribute=title|||importance=0.60|||values=ab###AB|||similarity=1.00\n"
        "attribute=price|||importance=0.00|||values=3###missing|||similarity=0.00"
    )
    assert read_structured(format_explanation(second, explain_config())) is not None
    swapped = [one.model_copy(update={"left": one.right, "right": one.left}) for one in rows]
    assert attribute_means(swapped) == means, "the measure is the same both ways"


def test_only_structured_explanations_come_without_an_annotator() -> None:
    with pytest.raises(InputError, match="format long needs an annotator"):
        load_config(ExplainConfig, None, ["format=long", "annotator=null"])
