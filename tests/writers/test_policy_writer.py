"""The policy as a writer: the same prompts through its own sampler, with a picture where the task needs one."""

import json
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, JudgeInput, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.writers.endpoint import PolicyWriterConfig
from sightline.writers.prompts import render_prompt
from sightline.writers.writer import Task, WriterTask
from tests.models.tiny import save_pictures, save_tiny_llava

TASKS: tuple[Task, ...] = ("corrupt", "correct", "alter", "split")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    """The tiny model with positions for these prompts, which its tokenizer cuts into many pieces."""
    directory = save_tiny_llava(tmp_path_factory.mktemp("roomy"))
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 1024
    (directory / "config.json").write_text(json.dumps(config))
    return load_vlm(directory)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("pictures"), 2)


def tools(vlm: VLM | None) -> RunContext:
    return RunContext(Path(), Path(), 0, vlm)


def test_it_says_what_the_sampler_says_to_the_prompts(roomy: VLM, pictures: list[Path]) -> None:
    about = JudgeInput(Prefix((pictures[0],), "What is it?"), "A red cup.")
    drafts = [WriterTask(task, about, seed) for task in TASKS for seed in (1, 2)]
    config = PolicyWriterConfig(name="policy", max_new_tokens=60, temperature=1.0)
    written = config.open(tools(roomy)).write(drafts)
    requests = [
        GenerateRequest(
            Prefix(about.prefix.images if draft.task == "correct" else (), render_prompt(draft)), seed=draft.seed
        )
        for draft in drafts
    ]
    generated = generate(roomy, requests, Sampling(60, 1.0), batch_size=1)
    assert any(one.finished for one in generated) and not all(one.finished for one in generated)
    for one, own in zip(written, generated, strict=True):
        assert one.tokens == own.tokens
        if own.finished and own.text.strip():
            assert one.text == own.text.strip().strip('"').strip() and one.note == ""
        else:
            assert one.text is None and one.note == ("empty reply" if own.finished else "cut off at max_tokens")
    assert len({one.text for one in written if one.text}) > 1


def test_seeds_decide_and_neighbors_do_not(roomy: VLM, pictures: list[Path]) -> None:
    about = JudgeInput(Prefix((pictures[0],), "What is it?"), "A red cup.")
    drafts = [WriterTask("correct", about, seed) for seed in range(6)]
    config = PolicyWriterConfig(name="policy", max_new_tokens=40)
    together = config.open(tools(roomy)).write(drafts)
    alone = [config.open(tools(roomy)).write([draft])[0] for draft in reversed(drafts)][::-1]
    assert together == alone and len({one.tokens for one in together}) > 1


def test_the_picture_matters_where_it_is_needed_alone(roomy: VLM, pictures: list[Path]) -> None:
    def write(task: Task, picture: Path) -> object:
        about = JudgeInput(Prefix((picture,), "<image>\nWhat is it?"), "A red cup. <image>")
        drafts = [WriterTask(task, about, seed) for seed in range(8)]
        return PolicyWriterConfig(name="policy", max_new_tokens=30).open(tools(roomy)).write(drafts)

    assert write("correct", pictures[0]) != write("correct", pictures[1])
    assert write("corrupt", pictures[0]) == write("corrupt", pictures[1])


def test_what_cannot_be_done_says_why_and_stops_nothing(roomy: VLM, pictures: list[Path]) -> None:
    seen = Prefix((pictures[0],), "What is it?")
    drafts = [
        WriterTask("correct", JudgeInput(Prefix((), "What is it?"), "A cup.")),
        WriterTask("alter", JudgeInput(seen, "A cup. " * 500)),
        WriterTask("correct", JudgeInput(seen, "A cup."), 3),
    ]
    writer = PolicyWriterConfig(name="policy", max_new_tokens=8).open(tools(roomy))
    blind, long, fine = writer.write(drafts)
    assert blind.text is None and "needs a picture" in blind.note
    assert long.text is None and long.note == "too long for the model"
    assert fine == writer.write(drafts[2:])[0] and fine.tokens > 0


def test_without_a_model_it_is_refused() -> None:
    with pytest.raises(InputError, match="--model"):
        PolicyWriterConfig(name="policy").open(tools(None))


def test_the_identity_hangs_on_model_and_sampling(roomy: VLM, vlm: VLM) -> None:
    def identity(model: VLM, **settings: float) -> str:
        config = PolicyWriterConfig.model_validate({"name": "policy", **settings})
        return config.open(tools(model)).identity

    other = [identity(vlm), identity(roomy, temperature=0), identity(roomy, max_new_tokens=9)]
    assert identity(roomy) == identity(roomy, batch_size=2) and len({identity(roomy), *other}) == 4
