"""Composed models against the slow reference, their members and manual sums; rejected compositions."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.families.base import MODALITY
from sightline.models.loading import load_vlm, model_hash
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.routing import TEXT
from sightline.models.sampler import generate
from sightline.models.scorer import answer_logps
from sightline.models.spec import to_spec
from sightline.models.vlm import VLM
from sightline.recipes.composition.config import ComposeConfig, MemberConfig, SearchConfig
from sightline.recipes.composition.members import WEIGHTS
from sightline.recipes.composition.run import compose
from sightline.records import Sample
from sightline.records.manifest import read_manifest
from tests.models.compose.siblings import SOUND_TOKENS, save_moved
from tests.models.compose.slow import SlowLora, SlowModel
from tests.models.tiny import IMAGE_TOKENS

ANSWERS = ("A red cup.", "A blue plate on the table.")
PLAIN = LoraSettings(rank=4, alpha=8.0)
DECOUPLED = LoraSettings(rank=3, alpha=6.0, decoupled=True)
BOTH = ("picture", "sound")


@pytest.fixture(scope="module")
def adapters(eye: Path, ear: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "picture": save_moved(eye, folder / "picture", 1, PLAIN, size=0.05),
        "sound": save_moved(ear, folder / "sound", 2, LoraSettings(rank=2, alpha=2.0, train_projector=True), size=0.05),
        "picture-two": save_moved(eye, folder / "picture-two", 3, DECOUPLED, size=0.05),
        "sound-two": save_moved(ear, folder / "sound-two", 4, DECOUPLED, size=0.05),
    }


@pytest.fixture
def items(shown: list[Path], heard: list[Path]) -> list[ScoreRequest]:
    """Both kinds in either order, one kind alone, two of a kind, none."""
    entries = [
        ((shown[0], heard[0]), BOTH),
        ((heard[1], shown[1]), ("sound", "picture")),
        ((heard[2],), ("sound",)),
        ((shown[0],), ("picture",)),
        ((heard[0], heard[1], shown[2]), ("sound", "sound", "picture")),
        ((), ()),
    ]
    return [ScoreRequest(Prefix(paths, "What do they share?", (), media), ANSWERS) for paths, media in entries]


def members(eye: Path, ear: Path, picture: Path | None, sound: Path | None) -> dict[str, MemberConfig]:
    return {
        "picture": MemberConfig(model=to_spec(eye), adapter=picture),
        "sound": MemberConfig(model=to_spec(ear), adapter=sound),
    }


@torch.no_grad()
def score(vlm: VLM, items: Sequence[ScoreRequest]) -> torch.Tensor:
    return answer_logps(vlm, list(items)).sums()


@torch.no_grad()
def slow_scores(
    vlm: VLM, eyes: SlowModel, ears: VLM, items: Sequence[ScoreRequest], names: Sequence[str]
) -> torch.Tensor:
    """Score with the slow language model of `eyes`; features of sounds come from the member `ears`."""
    rows = []
    for item in items:
        for answer in item.answers:
            row = encode_answer(vlm, encode_prefix(vlm, item.prefix), answer)
            features, chosen = [], []
            for path, kind in zip(item.prefix.images, item.prefix.media, strict=True):
                alone = encode_prefix(ears if kind == "sound" else vlm, Prefix((path,), "?"))
                if kind == "sound":
                    block = ears.family.features(ears.base, alone.images.tensors)["tokens"].double()
                else:
                    block = eyes.features(alone.images.tensors["picture.pixel_values"])
                features.append(block)
                chosen += [names[BOTH.index(kind)]] * len(block)
            owners = iter(chosen)
            tokens = [next(owners) if token == vlm.image_token_id else TEXT for token in row.ids]
            joined = torch.cat(features) if features else None
            rows.append(eyes.logp(row.ids, vlm.image_token_id, joined, tokens, row.start))
    return torch.stack(rows).view(len(items), -1)


def mixed(loras: Sequence[SlowLora], weights: Sequence[float]) -> SlowLora:
    """The weighted sum of changes, as one adapter with an identity matrix as A or B."""
    layers = {}
    for name in loras[0].layers:
        change = sum((weight * lora.change(name) for lora, weight in zip(loras, weights, strict=True)), torch.zeros(()))
        layers[name] = (change.detach(), torch.eye(len(change), dtype=torch.float64))
    return SlowLora(layers, 1.0)


def test_damc_sends_each_kinds_tokens_through_its_own_lora(
    eye: Path, ear: Path, adapters: dict[str, Path], items: list[ScoreRequest], tmp_path: Path
) -> None:
    picture, sound = adapters["picture-two"], adapters["sound-two"]
    config = ComposeConfig(members=members(eye, ear, picture, sound), weights=(0.75, 0.5), decoupled=True)
    vlm = load_vlm(compose(config, tmp_path / "out"))
    loras = {
        TEXT: mixed([SlowLora.read(picture), SlowLora.read(sound)], (0.75, 0.5)),
        "picture": SlowLora.read(picture / MODALITY),
        "sound": SlowLora.read(sound / MODALITY),
    }
    slow = slow_scores(vlm, SlowModel(eye, loras), load_vlm(ear, adapter=sound), items, BOTH)
    torch.testing.assert_close(score(vlm, items).double(), slow, rtol=1e-5, atol=1e-5)
    generations = generate(vlm, [GenerateRequest(item.prefix) for item in items], Sampling(6), batch_size=4)
    alone = [generate(vlm, [GenerateRequest(item.prefix)], Sampling(6), batch_size=1)[0] for item in items]
    assert generations == alone


def test_naivemc_adds_the_weighted_changes_up_and_keeps_trained_projectors(
    eye: Path, ear: Path, adapters: dict[str, Path], items: list[ScoreRequest], tmp_path: Path
) -> None:
    picture, sound = adapters["picture"], adapters["sound"]
    vlm = load_vlm(compose(ComposeConfig(members=members(eye, ear, picture, sound)), tmp_path / "mean"))
    loras = {TEXT: mixed([SlowLora.read(picture), SlowLora.read(sound)], (0.5, 0.5))}
    slow = slow_scores(vlm, SlowModel(eye, loras), load_vlm(ear, adapter=sound), items, (TEXT, TEXT))
    torch.testing.assert_close(score(vlm, items).double(), slow, rtol=1e-5, atol=1e-5)
    bare = slow_scores(vlm, SlowModel(eye, loras), load_vlm(ear), items[2:3], (TEXT, TEXT))
    assert (bare - slow[2:3]).abs().min() > 0.01  # the ear's projector before its adapter trained it


def test_without_adapters_it_is_each_member_and_can_be_trained(
    eye: Path, ear: Path, items: list[ScoreRequest], tmp_path: Path
) -> None:
    composed = compose(ComposeConfig(members=members(eye, ear, None, None)), tmp_path / "bare")
    vlm = load_vlm(composed)
    assert not (composed / "adapter").exists()
    heard, shown = items[2], items[3]
    torch.testing.assert_close(score(vlm, [heard]), score(load_vlm(ear), [heard]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(score(vlm, [shown]), score(load_vlm(eye), [shown]), rtol=1e-5, atol=1e-5)
    unnamed = ScoreRequest(Prefix(shown.prefix.images, shown.prefix.prompt), ANSWERS)
    torch.testing.assert_close(score(vlm, [unnamed]), score(vlm, [shown]), rtol=0, atol=0)
    counts = [encode_prefix(vlm, item.prefix).ids.count(vlm.image_token_id) for item in items]
    assert counts == [IMAGE_TOKENS + SOUND_TOKENS] * 2 + [
        SOUND_TOKENS,
        IMAGE_TOKENS,
        2 * SOUND_TOKENS + IMAGE_TOKENS,
        0,
    ]

    trained = add_lora(vlm, LoraSettings(rank=2, alpha=4.0, train_projector=True, decoupled=True))
    names = {name for name, weight in trained.model.named_parameters() if weight.requires_grad}
    assert {name.split(".")[-2] for name in names if ".lora_" in name} == {TEXT, "picture-tokens", "sound-tokens"}
    assert sum("multi_modal_projector" in name for name in names) == 2 * 4
    with torch.no_grad():
        for weight in trained.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    save_adapter(trained, tmp_path / "adapter")
    again = load_vlm(composed, adapter=tmp_path / "adapter")
    torch.testing.assert_close(score(again, items), score(trained, items), rtol=1e-6, atol=0)


def pruned(change: torch.Tensor, density: float) -> torch.Tensor:
    """Keep only the largest entries."""
    bound = change.abs().flatten().topk(int(density * change.numel())).values[-1]
    return torch.where(change.abs() >= bound, change, 0.0)


def ties(changes: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Yadav et al. 2023 (2306.01708, alg. 1): elect the sign of the sum, then the mean of the entries that have it.

    PEFT elects signs before it applies the weights.
    """
    every = torch.stack(list(changes))
    agrees = torch.sign(every) == torch.sign(every.sum(0))
    weighed = torch.tensor(weights, dtype=every.dtype)[:, None, None] * every
    return (weighed * agrees).sum(0) / agrees.sum(0).clamp(min=1)


@pytest.mark.parametrize("merge", ["ties", "magnitude_prune"])
def test_pruning_merges_follow_their_rule(
    eye: Path, ear: Path, adapters: dict[str, Path], tmp_path: Path, merge: str
) -> None:
    """In float64, then cut to the highest rank that the narrowest layer allows, 16."""
    entries = members(eye, ear, adapters["picture"], adapters["sound"])
    config = {"members": entries, "merge": merge, "weights": (1.0, 0.5), "density": 0.3, "rank": 32}
    merged = SlowLora.read(compose(ComposeConfig.model_validate(config), tmp_path / "out") / "adapter")
    both = [SlowLora.read(adapters[name]) for name in BOTH]
    for layer in merged.layers:
        kept = [pruned(lora.change(layer).detach(), 0.3) for lora in both]
        wanted = ties(kept, (1.0, 0.5)) if merge == "ties" else kept[0] + 0.5 * kept[1]
        left, values, right = torch.linalg.svd(wanted, full_matrices=False)
        wanted = (left[:, :16] * values[:16]) @ right[:16]
        torch.testing.assert_close(merged.change(layer).detach(), wanted, rtol=1e-3, atol=1e-5)


def test_a_merge_that_drops_at_random_goes_by_its_seed(
    eye: Path, ear: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    entries = members(eye, ear, adapters["picture"], adapters["sound"])
    config = ComposeConfig(members=entries, merge="dare_linear", weights=(1.0, 1.0), density=0.5)
    adapters_by_seed = [
        load_file(compose(config, tmp_path / f"{n}", seed) / "adapter" / WEIGHTS) for n, seed in enumerate((1, 1, 2))
    ]
    assert all(torch.equal(value, adapters_by_seed[1][key]) for key, value in adapters_by_seed[0].items())
    assert any(not torch.equal(value, adapters_by_seed[2][key]) for key, value in adapters_by_seed[0].items())


def test_searched_weights_are_those_of_the_greatest_log_prob(
    eye: Path, ear: Path, adapters: dict[str, Path], items: list[ScoreRequest], tmp_path: Path
) -> None:
    samples = []
    for number, item in enumerate(items[:5]):
        names = tuple(str(Path("..") / path.name) for path in item.prefix.images)
        folder = tmp_path / "samples"
        folder.mkdir(exist_ok=True)
        for path in item.prefix.images:
            (folder / path.name).write_bytes(path.read_bytes())
        samples.append(
            Sample(
                id=f"row-{number}",
                images=tuple(Path(name).name for name in names),
                media=item.prefix.media,
                prompt=item.prefix.prompt,
                reference=ANSWERS[number % 2],
            )
        )
    write_samples(tmp_path / "samples", samples)
    entries = members(eye, ear, adapters["picture-two"], adapters["sound-two"])
    search = SearchConfig(samples=tmp_path / "samples", values=(0.0, 0.4, 1.0), batch_size=2)
    out = compose(ComposeConfig(members=entries, search=search, decoupled=True), tmp_path / "out")
    found = json.loads((out / "composed.json").read_text())
    assert [tuple(one["weights"]) for one in found["tried"]] == [(a, b) for a in (0, 0.4, 1) for b in (0, 0.4, 1)]
    best = max(found["tried"], key=lambda one: one["logp"])
    assert found["weights"] == dict(zip(BOTH, best["weights"], strict=True))
    assert len({round(one["logp"], 6) for one in found["tried"]}) == 9
    # What is written is the best one, and what a try says is what its model says.
    last = load_vlm(compose(ComposeConfig(members=entries, weights=(1.0, 1.0), decoupled=True), tmp_path / "last"))
    for vlm, weights in ((load_vlm(out), best["weights"]), (last, [1.0, 1.0])):
        means = []
        for number, item in enumerate(items[:5]):
            with torch.no_grad():
                logps = answer_logps(vlm, [ScoreRequest(item.prefix, (ANSWERS[number % 2],))])
            means.append((logps.sums() / logps.lengths()).item())
        logged = next(one["logp"] for one in found["tried"] if one["weights"] == weights)
        assert sum(means) / len(means) == pytest.approx(logged, rel=1e-5)
    numbers = read_manifest(out).numbers
    assert numbers == {"weight.picture": best["weights"][0], "weight.sound": best["weights"][1]}


def test_another_base_is_refused_by_the_first_tensor_that_differs(
    eye: Path, ear: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in ear.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = load_file(other / "model.safetensors")
    name = next(key for key in weights if key.endswith("layers.1.self_attn.k_proj.weight"))
    weights[name][0, 0] += 0.25
    later = next(key for key in weights if key.endswith("layers.1.mlp.up_proj.weight"))
    weights[later][0, 0] += 0.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    arguments = ["compose", "--out", str(tmp_path / "out")]
    for key, value in (("picture.model", eye), ("sound.model", other)):
        arguments += ["--set", f"members.{key}={value}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "layers.1.self_attn.k_proj.weight differs by up to 0.25" in text
    assert "'picture' and 'sound'" in text
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_composed_or_shown_is_refused(
    eye: Path, ear: Path, adapters: dict[str, Path], items: list[ScoreRequest], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="decoupled=true"):
        compose(ComposeConfig(members=members(eye, ear, adapters["picture-two"], None)), tmp_path / "out")
    with pytest.raises(InputError, match="is not an adapter"):
        compose(ComposeConfig(members=members(eye, ear, eye, None)), tmp_path / "out")
    with pytest.raises(ValueError, match="needs a density"):
        ComposeConfig(members=members(eye, ear, adapters["picture"], None), merge="ties")
    with pytest.raises(ValueError, match="cannot name a kind"):
        ComposeConfig(members={"default": MemberConfig(model=to_spec(eye)), "sound": MemberConfig(model=to_spec(ear))})
    with pytest.raises(InputError, match="this model takes one kind"):
        score(load_vlm(eye), items[:1])
    composed = compose(ComposeConfig(members=members(eye, ear, None, None)), tmp_path / "bare")
    vlm, first_prefix = load_vlm(composed), items[0].prefix
    with pytest.raises(InputError, match="has the medium smell"):
        score(vlm, [ScoreRequest(Prefix(first_prefix.images, "What?", (), ("picture", "smell")), ANSWERS)])
    with pytest.raises(InputError, match="1 media and has 2 images"):
        score(vlm, [ScoreRequest(Prefix(first_prefix.images, "What?", (), ("picture",)), ANSWERS)])
    with pytest.raises(InputError, match="is already composed"):
        compose(ComposeConfig(members=members(composed, ear, None, None)), tmp_path / "twice")


def test_a_files_kind_is_part_of_what_is_kept_of_it(eye: Path, ear: Path, shown: list[Path], tmp_path: Path) -> None:
    vlm = load_vlm(compose(ComposeConfig(members=members(eye, ear, None, None)), tmp_path / "bare"))
    as_picture = ScoreRequest(Prefix((shown[0],), "What?", (), ("picture",)), ANSWERS)
    as_sound = ScoreRequest(Prefix((shown[0],), "What?", (), ("sound",)), ANSWERS)
    together = score(vlm, [as_picture, as_sound])
    torch.testing.assert_close(together[1:], score(vlm, [as_sound]), rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().min() > 0.01


def test_a_changed_encoder_is_another_model(eye: Path, ear: Path, tmp_path: Path) -> None:
    composed = compose(ComposeConfig(members=members(eye, ear, None, None)), tmp_path / "bare")
    before = model_hash(load_vlm(composed))
    path = composed / "encoders" / "sound" / "encoder.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).add_(0.5)
    save_file(weights, path)
    assert model_hash(load_vlm(composed)) != before
