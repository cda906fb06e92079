"""The tiny model with a few pairs over real images; shapes are checked in these tests too."""

from jaxtyping import install_import_hook

install_import_hook(
    ("sightline.train.reference_cache", "sightline.train.scoring", "sightline.models.head"), "beartype.beartype"
)

from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

from sightline.models.adapters import LoraSettings, add_lora  # noqa: E402
from sightline.models.loading import load_vlm  # noqa: E402
from sightline.models.vlm import VLM  # noqa: E402
from sightline.records.rows import Pair  # noqa: E402
from tests.models.tiny import save_pictures, save_tiny_llava  # noqa: E402

#: prompt, chosen, rejected: of different lengths, two of them about the same picture.
WORDS = (
    ("Describe the picture.", "A red cup and a blue plate.", "A small kettle stands on the table."),
    ("Describe the picture.", "There are two cows.", "There is one hen in front of the barn, next to the palm."),
    ("Is there a spoon in the image?", "No, there is no spoon.", "Yes."),
    ("How many cows are there?", "There are two cows in front of the barn.", "One."),
    ("Describe the picture.", "In addition, a boat.", "An umbrella is on the beach."),
    ("Is there a cup?", "Yes, there is a cup.", "No, there is no cup."),
)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Six pairs over four pictures, their paths absolute."""
    pictures = save_pictures(tmp_path_factory.mktemp("pictures"))
    return [
        Pair(
            id=f"pair-{index}",
            images=(str(pictures[index % len(pictures)]),),
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            builder="by hand",
        )
        for index, (prompt, chosen, rejected) in enumerate(WORDS)
    ]


@pytest.fixture
def full_pairs(pairs: list[Pair]) -> list[Pair]:
    """Pairs with everything: a second rejected answer, and spans over the last word of both answers."""

    def last_word(text: str) -> tuple[tuple[int, int], ...]:
        return ((len(text.rstrip(".").rpartition(" ")[0]) + 1, len(text) - 1),)

    return [
        pair.model_copy(
            update={
                "second_rejected": f"{pair.rejected} Two hens.",
                "chosen_spans": last_word(pair.chosen),
                "rejected_spans": last_word(pair.rejected),
            }
        )
        for pair in pairs
    ]


@pytest.fixture
def make_policy(model_dir: Path) -> Callable[..., VLM]:
    """A fresh policy: the tiny model with an untrained adapter."""

    def make(dropout: float = 0.0, targets: Sequence[str] | None = None, *, train_projector: bool = False) -> VLM:
        chosen_targets = None if targets is None else tuple(targets)
        return add_lora(load_vlm(model_dir), LoraSettings(4, 8.0, dropout, chosen_targets, train_projector), seed=1)

    return make
