"""The tiny families load with their own classes, fit together, and all of their parts affect the outputs."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.utils.import_utils import is_torchvision_available

from tests.models.families import FAMILIES, TEXT

pytestmark = [
    pytest.mark.skipif(not is_torchvision_available(), reason="`make setup` installs torchvision for this"),
    # PaliGemma's processor reads tensors into NumPy in a way that NumPy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
#: Numbers of tokens of a square and a strip, where they differ.
BY_FORM = {
    **dict.fromkeys(("llava_next", "llava_onevision"), (24, 14)),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), (16, 8)),
    **dict.fromkeys(("internvl", "idefics3", "smolvlm"), (20, 12)),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen4_exp", "lfm3_vl"), (16, 8)),
    **dict.fromkeys(("lfm2_vl", "nemotron_h_omni"), (9, 8)),
    "minicpmv4_6": (4, 3),
}
#: Families whose processor has another one's name.
PROCESSORS = {
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen4_exp"), "qwen3vlprocessor"),
    "nemotron_h_omni": "nemotronhomnireasoningv3processor",
}
#: Parts without an effect on these answers, such as a tower's after the layer whose output is used, or without a
#: gradient of size, as choices have none.
BEHIND = {
    **dict.fromkeys(("llava", "llava_next"), ("tower.encoder.layers.2.", "post_layernorm")),
    "llava_onevision": ("post_layernorm",),
    "nemotron_h_omni": ("video_patch_projection",),
    "qwen4_exp": ("self_attn.indexer.", "mlp.gate.weight"),
}
seeing = pytest.mark.parametrize("kit", [name for name in FAMILIES if name not in TEXT], indirect=True)
ANSWER = [50, 60, 70, 80]


class Kit(NamedTuple):
    name: str
    model: Any
    processor: Any

    def render(self, pictures: int, answer: str | None = None) -> str:
        question = [{"type": "image"}] * pictures + [{"type": "text", "text": "Is there a spoon?"}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        if answer is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        text: str = self.processor.apply_chat_template(messages, add_generation_prompt=answer is None, tokenize=False)
        return text

    def inputs(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The processor's output for the question, called as in `sightline.models.encoding`."""
        text = self.render(len(pictures))
        bos = getattr(self.processor, "tokenizer", self.processor).bos_token
        options: dict[str, Any] = {} if self.name in TEXT else {"images": list(pictures) or None}
        add = bos is None or not text.startswith(bos)
        encoded = dict(self.processor(text=text, **options, add_special_tokens=add, return_tensors="pt"))
        encoded.pop("labels", None)  # PaliGemma's, and none of them to be learned
        return encoded

    def answer_logps(self, inputs: dict[str, Tensor]) -> Tensor:
        """Log-probs of every token, at each place of the answer."""
        answer = torch.tensor([ANSWER])
        joined = {**inputs, "input_ids": torch.cat([inputs["input_ids"], answer], 1)}
        causal = int(self.name.startswith("paligemma"))  # its type 0 is attended to both ways, as Gemma 3's type 1 is
        for key, value in {"attention_mask": 1, "mm_token_type_ids": 0, "token_type_ids": causal}.items():
            if key in inputs:
                joined[key] = torch.cat([inputs[key], torch.full_like(answer, value)], 1)
        logits: Tensor = self.model(**joined).logits
        return logits[0, -len(ANSWER) - 1 : -1].log_softmax(-1)

    def count_features(self, inputs: dict[str, Tensor]) -> int:
        encode = self.model.get_image_features
        if "pixel_values" not in signature(encode).parameters:
            encode = self.model.model.get_image_features
        known = signature(encode).parameters
        found: Any = encode(**{key: value for key, value in inputs.items() if key in known})
        return sum(rows.numel() // rows.shape[-1] for rows in found.pooler_output)


@pytest.fixture(scope="module", params=FAMILIES)
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    name: str = request.param
    directory = FAMILIES[name](tmp_path_factory.mktemp(name))
    blind = name in TEXT
    model: Any = (AutoModelForCausalLM if blind else AutoModelForImageTextToText).from_pretrained(directory)
    processor: Any = (AutoTokenizer if blind else AutoProcessor).from_pretrained(directory)
    return Kit(name, model.eval(), processor)


def noise(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


SQUARE, OTHER, STRIP = noise(56, 56, seed=1), noise(56, 56, seed=2), noise(56, 28, seed=3)


def test_it_is_of_its_family(kit: Kit) -> None:
    family = "paligemma" if kit.name == "paligemma2" else kit.name
    assert kit.model.config.model_type == family
    if family in TEXT:
        tokenizer = kit.processor
    else:
        expected = PROCESSORS.get(family, family.replace("_", "") + "processor")
        assert type(kit.processor).__name__.replace("_", "").lower() == expected
        tokenizer = kit.processor.tokenizer
    assert kit.model.get_input_embeddings().num_embeddings == len(tokenizer)


@seeing
@pytest.mark.parametrize("pictures", [(SQUARE,), (SQUARE, STRIP), ()], ids=["one", "two", "none"])
def test_image_tokens_are_as_many_as_features(kit: Kit, pictures: tuple[Image.Image, ...]) -> None:
    if not pictures and kit.name.startswith("paligemma"):
        with pytest.raises(ValueError, match="images"):
            kit.inputs(pictures)
        return
    inputs = kit.inputs(pictures)
    tokens = int((inputs["input_ids"] == kit.model.config.image_token_id).sum())
    assert tokens == (kit.count_features(inputs) if pictures else 0)
    assert tokens == sum(BY_FORM.get(kit.name, (4, 4))[: len(pictures)])
    assert kit.answer_logps(inputs).isfinite().all()


@seeing
def test_the_picture_moves_the_answer(kit: Kit) -> None:
    with torch.no_grad():
        here, there = (kit.answer_logps(kit.inputs([picture])) for picture in (SQUARE, OTHER))
    assert (here - there).abs().amax(-1).min() > 0.1  # at each of its tokens


def test_every_weight_moves_the_answer(kit: Kit) -> None:
    kit.model.zero_grad()
    kit.answer_logps(kit.inputs([] if kit.name in TEXT else [STRIP]))[range(len(ANSWER)), ANSWER].sum().backward()
    # A key's bias moves nothing where no position turns it: it adds the same to all that are chosen from.
    spared = ("k_proj.bias", *BEHIND.get(kit.name, ()))
    weights = {n: w for n, w in kit.model.named_parameters() if not any(part in n for part in spared)}
    assert not [name for name, w in weights.items() if w.grad is None or w.grad.abs().max() < 0.01]


def test_an_answer_follows_its_prompt(kit: Kit) -> None:
    prompt, whole = (kit.render(int(kit.name not in TEXT), answer) for answer in (None, "No, there is no spoon."))
    assert whole.startswith(prompt)
    assert whole.removeprefix(prompt).lstrip().startswith("No, there is no spoon.")


@pytest.mark.parametrize("kit", ["paligemma2", "gemma3"], indirect=True)
def test_windows_are_shorter_than_a_prompt(kit: Kit) -> None:
    text, inputs = kit.model.config.text_config, kit.inputs([SQUARE])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        sliding = kit.answer_logps(inputs)
        patch.setattr(text, "sliding_window", 512)
        whole = kit.answer_logps(inputs)
    assert (sliding - whole).abs().max() > 0.1
