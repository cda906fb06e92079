"""Marked words: the right ones, and no character lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from sightline.report.gallery import Segment, differing_words, hallucinated_spans, mark_spans
from sightline.report.rendering import html_segments, markdown_segments, markdown_text


def marked(segments: list[Segment]) -> list[str]:
    return [segment.text for segment in segments if segment.marked]


def test_words_that_differ_are_marked_on_both_sides() -> None:
    chosen, rejected = differing_words("A red cup and a spoon.", "A red cup and a blue pan.")
    assert marked(chosen) == ["spoon"]
    assert marked(rejected) == ["blue pan"]


def test_only_the_words_are_marked_and_only_where_they_are() -> None:
    chosen, rejected = differing_words("Yes, there is.", "No, there is.")
    assert (marked(chosen), marked(rejected)) == (["Yes"], ["No"])
    chosen, rejected = differing_words("one two", "one two three")
    assert (marked(chosen), marked(rejected)) == ([], ["three"])
    assert differing_words("same", "same") == ([Segment("same", False)], [Segment("same", False)])


@given(st.text(max_size=60), st.text(max_size=60))
def test_segments_joined_are_the_text(chosen: str, rejected: str) -> None:
    for text, segments in zip((chosen, rejected), differing_words(chosen, rejected), strict=True):
        assert "".join(segment.text for segment in segments) == text


def test_spans_may_overlap_and_reach_outside() -> None:
    segments = mark_spans("a pan and a cup", [(2, 5), (4, 9), (12, 99), (-3, 0), (7, 7)])
    assert segments == [Segment("a ", False), Segment("pan and", True), Segment(" a ", False), Segment("cup", True)]
    assert mark_spans("", [(0, 3)]) == []


def test_hallucinated_spans_are_read_from_details() -> None:
    assert hallucinated_spans({"hallucinated": [[2, 5], (7, 9), ["x"]]}) == [(2, 5), (7, 9)]
    assert hallucinated_spans({"hallucinated": []}) == []
    assert hallucinated_spans({"parsed": "yes"}) is None


def test_marking_escapes_what_it_marks_and_what_it_does_not() -> None:
    segments = [Segment("<b>", False), Segment('"<i>&', True)]
    assert html_segments(segments, "absent") == Markup("&lt;b&gt;") + Markup(
        '<mark class="absent">&#34;&lt;i&gt;&amp;</mark>'
    )
    assert markdown_segments([Segment("a *b* ", False), Segment("c|d", True), Segment(" e", False)]) == (
        "a \\*b\\* <b>c\\|d</b> e"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[x](javascript:1)", "\\[x\\](javascript:1)"),
        ("a\n# b\r\n  c", "a \\# b c"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("`**_~", "\\`\\*\\*\\_\\~"),
    ],
)
def test_markdown_text_means_nothing(text: str, written: str) -> None:
    assert markdown_text(text) == written
