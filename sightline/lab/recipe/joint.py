"""The untrained LLaVA around the tower, and its next-token training on `TokenRow`s: prior and instruction tuning.

The two differ in the trained parameters and in whether pictures are shown. The tower is frozen, so each scene's
features are computed once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from sightline.lab.language import ReferenceNoise, Speaker, noisy_groups, object_groups
from sightline.lab.questions import CAPTION_PROMPTS, DESCRIBE_PROMPTS, draw_question
from sightline.lab.recipe.config import RecipeConfig
from sightline.lab.recipe.optimize import fast_format, make_optimizers, schedule_steps, take_step
from sightline.lab.recipe.perception import PIXEL_MEAN, PIXEL_STD, normalize, patch_features, vision_config
from sightline.lab.world import IMAGE_SIZE, Scene

QUESTIONS = 6  # questions per round, all on one picture
Turn = tuple[str, str]  # user prompt, assistant answer
Conversation = tuple[Turn, ...]


def description(rng: np.random.Generator, scene: Scene, noise: ReferenceNoise) -> tuple[Turn, list[str]]:
    """A prompt, an imperfect reference description, and the absent kinds it names."""
    groups, absent = noisy_groups(rng, scene.theme, object_groups(scene), noise)
    prompt = DESCRIBE_PROMPTS[int(rng.integers(len(DESCRIBE_PROMPTS)))]
    return (prompt, Speaker(rng).describe(scene.theme, groups)), absent


def caption(rng: np.random.Generator, scene: Scene) -> Turn:
    """A prompt and a one-sentence caption."""
    prompt = CAPTION_PROMPTS[int(rng.integers(len(CAPTION_PROMPTS)))]
    return prompt, Speaker(rng).caption(scene.theme, object_groups(scene))


def conversation(rng: np.random.Generator, scene: Scene, noise: ReferenceNoise, described: float) -> Conversation:
    """One row: a description, or a round of questions about the scene, sometimes with a caption first."""
    if rng.random() < described:
        return (description(rng, scene, noise)[0],)
    turns = [caption(rng, scene)] if rng.random() < 0.3 else []
    while len(turns) < QUESTIONS:
        question = draw_question(rng, scene)
        turns.append((question.text, question.answer))
    return tuple(turns)


IGNORED = -100
_POOL = 4  # batches drawn together and sorted by length: less padding


@dataclass(frozen=True)
class TokenRow:
    """Token ids with one image token per patch, labels of the same length, and the index of the picture's features."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    picture: int | None


Batch = Sequence[TokenRow]


def tokenize(
    tokenizer: PreTrainedTokenizerFast, conversation: Conversation, picture: int | None, patches: int
) -> TokenRow:
    """The ids of the processor's chat template, with labels on answers and their end tokens."""
    ids: list[int] = [tokenizer.bos_token_id]
    labels: list[int] = [IGNORED]
    for number, (question, answer) in enumerate(conversation):
        shown = "<image>" * patches + "\n" if number == 0 and picture is not None else ""
        before = _ids(tokenizer, f"USER: {shown}{question} ASSISTANT:")
        after = [*_ids(tokenizer, f" {answer}"), tokenizer.eos_token_id]
        ids += before + after
        labels += [IGNORED] * len(before) + after
    return TokenRow(tuple(ids), tuple(labels), picture)


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def collate(rows: Sequence[TokenRow], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and labels, each int64 [row, token]; with a causal model right padding needs no mask."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        labels[number, : len(row.labels)] = torch.tensor(row.labels)
    return ids, labels


def length_batches(draw: Callable[[], TokenRow], size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Endless batches of rows of similar length."""
    while True:
        pool = sorted((draw() for _ in range(size * _POOL)), key=lambda row: len(row.ids))
        for number in rng.permutation(_POOL):
            yield pool[number * size : (number + 1) * size]


def make_llava(
    recipe: RecipeConfig, tokenizer: PreTrainedTokenizerFast, tower: CLIPVisionModel
) -> LlavaForConditionalGeneration:
    """An untrained LLaVA around the trained tower."""
    torch.manual_seed(recipe.seed + 1)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.width * 11 // 4,
        num_hidden_layers=recipe.language_layers,
        num_attention_heads=recipe.width // 64,
        num_key_value_heads=recipe.width // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision_config(recipe),
        text_config=text,
        image_token_index=int(tokenizer.convert_tokens_to_ids("<image>")),  # type: ignore[arg-type]
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(96 // recipe.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # faster than SDPA here (see `perception`); training only
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


@torch.no_grad()
def encode_pictures(model: LlavaForConditionalGeneration, pixels: np.ndarray) -> Tensor:
    """The frozen tower's features of each picture (uint8 [scene, height, width, 3]), bfloat16 [scene, patch, width]."""
    chunks = []
    for start in range(0, len(pixels), 64):
        some = normalize(pixels[start : start + 64], model.device)
        with fast_format(model.device):
            chunks.append(patch_features(model.model.vision_tower, some).bfloat16())
    return torch.cat(chunks)


def next_token_loss(model: LlavaForConditionalGeneration, batch: Batch, features: Tensor | None, pad: int) -> Tensor:
    """Mean cross-entropy over the assistant's tokens; the head runs only where there is a label."""
    ids, labels = (each.to(model.device) for each in collate(batch, pad))
    with fast_format(model.device):
        embedded = model.get_input_embeddings()(ids)
        if features is not None:
            shown = torch.tensor([row.picture for row in batch if row.picture is not None], dtype=torch.long)
            projected = model.model.multi_modal_projector(features[shown].to(embedded.dtype))
            where = (ids == model.config.image_token_id).unsqueeze(-1)
            embedded = embedded.to(projected.dtype).masked_scatter(where, projected)
        hidden = model.model.language_model(inputs_embeds=embedded).last_hidden_state
        has_label = labels[:, 1:] != IGNORED
        logits = model.lm_head(hidden[:, :-1][has_label])
    return F.cross_entropy(logits.float(), labels[:, 1:][has_label])


def train(
    model: LlavaForConditionalGeneration,
    trained: Sequence[nn.Module],
    steps: int,
    batches: Iterator[Batch],
    features: Tensor | None,
    recipe: RecipeConfig,
    rate: float,
) -> Iterator[tuple[int, float]]:
    """Train the parameters of `trained` on `steps` of the batches; yields (step, loss)."""
    model.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    pad = model.config.get_text_config().pad_token_id
    optimizers = make_optimizers(named, rate, recipe.weight_decay)
    for step in schedule_steps(optimizers, steps):
        loss = next_token_loss(model, next(batches), features, pad)
        take_step(optimizers, loss)
        yield step, loss.item()


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% if message['role'] == 'user' %} {% else %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with `size` tokens; any text can be encoded, the lab's words mostly in one token each."""
    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>", "<pad>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"}, model_max_length=1024,
    )  # fmt: skip


def make_processor(recipe: RecipeConfig, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """LLaVA's own processor around the tokenizer and CLIP's image processor at the lab's size."""
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessorPil(
        do_resize=True, size=side, do_center_crop=False, crop_size=side,
        image_mean=list(PIXEL_MEAN), image_std=list(PIXEL_STD),
    )  # fmt: skip
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=recipe.patch_size,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
