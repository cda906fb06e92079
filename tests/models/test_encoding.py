"""Rendering and tokenizing with several chat templates, and refused texts."""

from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.lab import BASE
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefill, encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix
from sightline.models.sampler import image_token_count
from sightline.models.vlm import VLM
from sightline.records import Turn
from tests.models.tiny import IMAGE_TOKENS

#: Qwen's form: a line for the role, the turn's end rendered by the template, and a line break behind it.
CHATML = (
    "{% for message in messages %}{{ '[' + message['role'] + ']\n' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{{ '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)
#: LLaVA-OneVision's published form: a finished turn is opened with other white space than the generation prompt.
OTHER_SPACE = CHATML.replace("'[' + message['role'] + ']\n'", "'[' + message['role'] + '] \n'")
#: The form of llava-hf/llava-1.5-7b-hf: a space behind every turn, and no token that ends it.
LLAVA_15 = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
BOS_WRITTEN = "{{ bos_token }}" + LLAVA_15
#: Opens a thought in the generation prompt that finished answers lack.
THINKING = LLAVA_15.replace("{{ 'ASSISTANT:' }}", "{{ 'ASSISTANT: [think]' }}")


def readable(vlm: VLM, ids: tuple[int, ...]) -> str:
    text: str = vlm.tokenizer.decode(ids)
    return text.replace("<image>" * IMAGE_TOKENS, "<images>")


def test_an_answer_stands_behind_the_generation_prompt_and_ends_the_turn(vlm: VLM, pictures: list[Path]) -> None:
    prefix = encode_prefix(vlm, Prefix((pictures[0], pictures[1]), "Which one?"))
    assert readable(vlm, prefix.ids) == "<s>USER: <images>\n<images>\nWhich one? ASSISTANT:"
    row = encode_answer(vlm, prefix, "The red cup.")
    assert row.ids[: row.start] == prefix.ids
    assert readable(vlm, row.ids[row.start :]) == " The red cup.</s>"
    assert readable(vlm, encode_answer(vlm, prefix, "").ids[row.start :]) == "</s>"
    assert row.images.tensors["pixel_values"].shape == (2, 3, 36, 36)


def test_a_prefill_is_the_beginning_of_an_answer(vlm: VLM, pictures: list[Path]) -> None:
    prefix = encode_prefix(vlm, Prefix((pictures[0],), "Describe."))
    assert encode_prefill(vlm, prefix, "").ids == prefix.ids
    row = encode_prefill(vlm, prefix, "In addition, a boat")
    assert readable(vlm, row.ids[row.start :]) == " In addition, a boat"
    assert row.ids == encode_answer(vlm, prefix, "In addition, a boat and").ids[: len(row.ids)]


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        (CHATML, "<s>[user]\n<images>Which one?</s>\n[assistant]\n|Red cup.</s>"),
        (LLAVA_15, "<s>USER: <images>\nWhich one? ASSISTANT:| Red cup.</s>"),
        (CHATML.replace("'</s>", "' </s>"), "<s>[user]\n<images>Which one? </s>\n[assistant]\n|Red cup. </s>"),
        (OTHER_SPACE, "<s>[user] \n<images>Which one?</s>\n[assistant]\n|Red cup.</s>"),
        (BOS_WRITTEN, "<s>USER: <images>\nWhich one? ASSISTANT:| Red cup.</s>"),
    ],
)
def test_other_chat_templates(vlm: VLM, pictures: list[Path], template: str, rendered: str) -> None:
    vlm.processor.chat_template = template
    row = encode_answer(vlm, encode_prefix(vlm, Prefix((pictures[0],), "Which one?")), "Red cup.")
    assert readable(vlm, row.ids[: row.start]) + "|" + readable(vlm, row.ids[row.start :]) == rendered


REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
SYSTEM = (Turn(role="system", text="Answer briefly."),)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (REFUSING, "System role not supported"),
        ("{{ messages[0]['content'] + 'text' }}", "can only concatenate list"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ messages[0]['content'].__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% for %}", "Expected"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_that_raises_is_one_sentence(vlm: VLM, pictures: list[Path], template: str, reason: str) -> None:
    vlm.processor.chat_template = template
    with pytest.raises(InputError) as caught:
        encode_prefix(vlm, Prefix((pictures[0],), "Which one?", SYSTEM))
    text = str(caught.value)
    assert text.startswith("prompt 'Which one?': the chat template of ") and "\n" not in text
    assert "refuses it (" in text and reason in text and "its turns are system, user" in text


def test_a_system_turn_is_never_put_into_the_mouth_of_the_assistant(vlm: VLM, pictures: list[Path]) -> None:
    """The tiny template and the lab's have two roles: the user and all others."""
    prefix = Prefix((pictures[0],), "Which one?", SYSTEM)
    assert readable(vlm, encode_prefix(vlm, prefix).ids) == "<s>USER: <images>\nAnswer briefly.\nWhich one? ASSISTANT:"
    later = (*SYSTEM, Turn(role="user", text="See <image>."), Turn(role="assistant", text="Yes."))
    rendered = readable(vlm, encode_prefix(vlm, Prefix((pictures[0],), "Which?", later)).ids)
    assert rendered.startswith("<s>USER: <images>\nAnswer briefly.\nSee") and rendered.count("Answer briefly.") == 1
    assert "ASSISTANT: Yes.</s>USER: Which? ASSISTANT:" in rendered
    vlm.processor.chat_template = CHATML
    rendered = readable(vlm, encode_prefix(vlm, prefix).ids)
    assert rendered == "<s>[system]\nAnswer briefly.</s>\n[user]\n<images>Which one?</s>\n[assistant]\n"


def test_the_lab_says_a_system_turn_with_the_first_question() -> None:
    """A conversation without a system turn is rendered unchanged, to the byte."""
    vlm = load_vlm(BASE)
    turns = (Turn(role="user", text="Is there a cup?"), Turn(role="assistant", text="Yes."))
    plain = encode_prefix(vlm, Prefix((), "Is it red?", turns))
    assert plain.text == "<s>USER: Is there a cup? ASSISTANT: Yes.</s>USER: Is it red? ASSISTANT:"
    encoded = encode_prefix(vlm, Prefix((), "Is it red?", (*SYSTEM, *turns)))
    assert encoded.text == plain.text.replace("<s>USER: ", "<s>USER: Answer briefly.\n")
    assert encode_answer(vlm, encoded, "Yes.").ids[-1] in vlm.end_ids


def test_a_template_that_treats_finished_answers_otherwise_is_refused(vlm: VLM) -> None:
    vlm.processor.chat_template = THINKING
    with pytest.raises(InputError, match="does not put an answer right after its generation prompt"):
        encode_prefix(vlm, Prefix((), "Why?"))


def test_an_answer_that_merges_with_the_prompt_is_refused(vlm: VLM) -> None:
    # The generation prompt ends with a space, which byte-level BPE merges with the next word.
    vlm.processor.chat_template = LLAVA_15.replace("'ASSISTANT:'", "'ASSISTANT: '")
    prefix = encode_prefix(vlm, Prefix((), "Why?"))
    with pytest.raises(InputError, match="merges with the end of the prompt"):
        encode_answer(vlm, prefix, "There is a cup.")


@pytest.mark.parametrize("text", ["Look: <image> there", "Stop here</s>"])
def test_special_tokens_in_a_text_are_refused(vlm: VLM, text: str) -> None:
    with pytest.raises(InputError, match="contains the special token"):
        encode_prefix(vlm, Prefix((), text))
    prefix = encode_prefix(vlm, Prefix((), "Why?"))
    for encode in (encode_answer, encode_prefill):
        with pytest.raises(InputError, match="contains the special token"):
            encode(vlm, prefix, text)


def test_an_empty_prompt_and_a_missing_image_are_refused(vlm: VLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        encode_prefix(vlm, Prefix((), "  "))
    with pytest.raises(InputError, match=r"nowhere\.png"):
        encode_prefix(vlm, Prefix((tmp_path / "nowhere.png",), "Describe."))


def test_a_row_that_does_not_fit_is_refused_and_not_cut(vlm: VLM, pictures: list[Path]) -> None:
    prefix = encode_prefix(vlm, Prefix((pictures[0],), "Describe."))
    for encode in (encode_answer, encode_prefill):
        with pytest.raises(RowTooLong, match=r"makes a row of \d+ tokens .* takes 256"):
            encode(vlm, prefix, "cup " * 300)


def test_image_tokens_are_counted_over_all_images(vlm: VLM, pictures: list[Path]) -> None:
    counts = [image_token_count(vlm, Prefix(tuple(pictures[:n]), "Describe.")) for n in range(3)]
    assert counts == [0, IMAGE_TOKENS, 2 * IMAGE_TOKENS]


def test_earlier_turns_and_places_of_images(vlm: VLM, pictures: list[Path]) -> None:
    history = (
        Turn(role="user", text="Compare <image> and\n<image>"),
        Turn(role="assistant", text="Two cups."),
    )
    vlm.processor.chat_template = CHATML
    prefix = encode_prefix(vlm, Prefix((pictures[0], pictures[1]), "Which is red?", history))
    rendered = (
        "[user]\nCompare <images> and<images></s>\n[assistant]\nTwo cups.</s>\n[user]\nWhich is red?</s>\n[assistant]\n"
    )
    assert readable(vlm, prefix.ids) == f"<s>{rendered}"
    with pytest.raises(InputError, match="has 2 <image> placeholders and 1 images"):
        encode_prefix(vlm, Prefix((pictures[0],), "Which is red?", history))
