"""The end of a row: texts equal those of decoding every row after every token, and few rows are decoded."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sightline.models import stopping
from sightline.models.requests import Sampling
from sightline.models.stopping import StopRule, continuation_text
from tests.models.tiny import train_tokenizer


def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer of Llama 2's kind: spaces are part of tokens, and other characters are single bytes."""
    words = ["\u2581", "\u2581a", "a", "b", ".", "\u2581b.", ". ", "\u00e9", "\u2581\u2581", "ab.", ".\n", "e"]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    core = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, eos_token="</s>", unk_token="<unk>"
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """A tokenizer whose decoder puts the spaces between words."""
    words = ["[UNK]", "[SEP]", "a", "##a", "b", "##b", ".", "##.", "ab", "##ab."]
    core = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, unk_token="[UNK]", eos_token="[SEP]"
    )


TOKENIZERS = {"byte-level": train_tokenizer, "sentencepiece": sentencepiece, "wordpiece": wordpiece}


def plain_end(
    tokenizer: Any, sampling: Sampling, ends: frozenset[int], context: Sequence[int], ids: Sequence[int], dropped: str
) -> tuple[str, bool] | None:
    """The rule with the row decoded after every token."""
    if ids[-1] in ends:
        return continuation_text(tokenizer, context, ids[:-1], dropped), True
    text = continuation_text(tokenizer, context, ids, dropped)
    cuts = [text.index(stop) + len(stop) for stop in sampling.stop if stop in text]
    if cuts:
        return text[: min(cuts)], True
    return (text, False) if len(ids) == sampling.max_new_tokens else None


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rows_end_as_if_all_were_decoded_after_every_token(kind: str) -> None:
    tokenizer: Any = TOKENIZERS[kind]()
    draw = random.Random(5)
    stops = [(".",), ("b.", "\u00e9"), (" ",), ("a b", "\n\n"), ("\ufffd",), ("a\ufffd",), ("ab. a",), ("\u20ac",)]
    bytes_of_euro = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "\u20ac".encode()]
    common = [tokenizer.convert_tokens_to_ids(token) for token in ("a", "b", ".", "\u2581", "##a", "\u0120", "\u010a")]
    common = [token for token in [*common, *bytes_of_euro] if token not in (None, tokenizer.unk_token_id)]
    end = frozenset({tokenizer.eos_token_id})
    outcomes = {True: 0, False: 0}
    for number in range(400):
        sampling = Sampling(draw.choice([3, 12, 25]), stop=draw.choice(stops))
        rule = StopRule(tokenizer, sampling, end)
        pool = common if number % 3 else range(len(tokenizer))
        context = draw.choices(pool, k=draw.choice([0, 1, 9]))
        dropped, ids = draw.choice(["", " ", "\n"]), []
        while True:
            ids.append(draw.choice(pool))
            found = rule.ended_text(context, ids, dropped)
            assert found == plain_end(tokenizer, sampling, end, context, ids, dropped), (context, ids, sampling)
            if found is not None:
                outcomes[found[1]] += 1
                break
    assert min(outcomes.values()) > 30


def test_only_rows_that_can_have_ended_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = train_tokenizer()
    words = tokenizer(" a red cup and a blue plate", add_special_tokens=False)["input_ids"]
    dot = tokenizer(".", add_special_tokens=False)["input_ids"]
    rule = StopRule(tokenizer, Sampling(1000, stop=(".",)), frozenset())
    for token in {*words, *dot}:  # each token's own text is found once
        rule.ended_text([], [token], "")
    decoded: list[int] = []
    plain = stopping.decode_ids

    def decode(tokenizer: Any, ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return plain(tokenizer, ids)

    monkeypatch.setattr(stopping, "decode_ids", decode)
    ids: list[int] = []
    for token in words * 10:
        ids.append(token)
        assert rule.ended_text([], ids, "") is None
    assert not decoded
    assert rule.ended_text([], [*ids, *dot], "") is not None
    assert len(decoded) == 2
