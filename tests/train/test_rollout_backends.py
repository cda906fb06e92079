"""Answers of the policy from a server equal those in process: same images, same adapter, same seeds."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.vlm import VLM
from sightline.records.rows import IMAGE, Pair, Turn
from sightline.train.rollout_backends import LocalConfig, ServerBackend, ServerConfig, make_backend
from tests.train.adapter_server import serving_adapters

pytest.importorskip("openai")
Make = Callable[..., VLM]
SAMPLING = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.9)


def stir(vlm: VLM, seed: int) -> None:
    """Another policy."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))


def requests(pairs: list[Pair]) -> list[GenerateRequest]:
    """Two prompts with three answers each, and a conversation about two pictures that stand within the text."""
    images = [Path(image) for pair in pairs[:2] for image in pair.images]
    history = (Turn(role="user", text=f"Look: {IMAGE}"), Turn(role="assistant", text="A red cup."))
    prompts = [pair.prompt for pair in pairs[:2]]
    requested = [
        GenerateRequest(Prefix((image,), prompt), seed=n)
        for n in range(3)
        for image, prompt in zip(images, prompts, strict=True)
    ]
    return [*requested, GenerateRequest(Prefix(tuple(images), f"And {IMAGE} here?", history), seed=9)]


def test_a_server_with_the_adapter_answers_as_the_policy_itself_and_changes_with_it(
    make_policy: Make, model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = make_policy()
    local = make_backend(LocalConfig(batch_size=4), vlm, tmp_path, autocast=False)
    with serving_adapters(model_dir) as (url, served):
        server = make_backend(ServerConfig(name="server", base_url=url), vlm, tmp_path, autocast=False)
        answers = []
        for step in range(2):
            stir(vlm, step)
            local.refresh(step)
            server.refresh(step)
            answers.append(server.sample(requests(pairs), SAMPLING))
            assert answers[-1] == local.sample(requests(pairs), SAMPLING)
            assert len(served.adapters) == 1, "the adapter before is forgotten"
            assert [path.name for path in (tmp_path / "rollouts").iterdir()] == list(served.adapters)
        assert answers[0] != answers[1]
        texts = {answer.text for answer in answers[0] if isinstance(answer, Generation)}
        assert len(texts) > 4, "several seeds give several answers"
        names = [body["model"] for body in served.calls("chat/completions")]
        assert len(set(names)) == 2 and all(name.endswith(f"{i // 7:08d}") for i, name in enumerate(names))
        server.close()
        assert not served.adapters and not (tmp_path / "rollouts").exists()


def test_the_policy_is_that_of_the_last_refresh(
    make_policy: Make, model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = make_policy()
    with serving_adapters(model_dir) as (url, _):
        server = make_backend(ServerConfig(name="server", base_url=url), vlm, tmp_path, autocast=False)
        server.refresh(0)
        before = server.sample(requests(pairs), SAMPLING)
        stir(vlm, 1)
        assert server.sample(requests(pairs), SAMPLING) == before
        server.refresh(1)
        assert server.sample(requests(pairs), SAMPLING) != before


def test_a_run_that_goes_on_replaces_what_the_server_still_has(
    make_policy: Make, model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    """Killed after its refresh at step 4; the same step is loaded again, from other weights, under the same name.

    Where the last checkpoint was of an earlier step, it is loaded under that one's, and step 4 forgotten.
    """
    vlm = make_policy()
    with serving_adapters(model_dir) as (url, served):
        config = ServerConfig(name="server", base_url=url)
        make_backend(config, vlm, tmp_path, autocast=False).refresh(4)
        stir(vlm, 5)
        again = make_backend(config, vlm, tmp_path, autocast=False)
        again.refresh(4)
        local = make_backend(LocalConfig(), vlm, tmp_path, autocast=False)
        assert again.sample(requests(pairs), SAMPLING) == local.sample(requests(pairs), SAMPLING)
        assert len(served.adapters) == 1
        make_backend(config, vlm, tmp_path, autocast=False).refresh(2)
        assert [name[-8:] for name in served.adapters] == ["00000002"]
        make_backend(config, vlm, tmp_path, autocast=False).close()
        assert not served.adapters and not (tmp_path / "rollouts").exists()


def test_stop_strings_and_the_limit_end_answers_alike(
    make_policy: Make, model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = make_policy()
    stir(vlm, 0)
    sampling = dataclasses.replace(SAMPLING, stop=("e", " "), max_new_tokens=3)
    with serving_adapters(model_dir) as (url, _):
        server = make_backend(ServerConfig(name="server", base_url=url), vlm, tmp_path, autocast=False)
        server.refresh(0)
        found = server.sample(requests(pairs), sampling)
    assert found == make_backend(LocalConfig(), vlm, tmp_path, autocast=False).sample(requests(pairs), sampling)
    finished = {generation.finished for generation in found if isinstance(generation, Generation)}
    assert finished == {True, False}


def test_faults_are_one_sentence_with_the_remedy(
    make_policy: Make, model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = make_policy()

    def refused(match: str, url: str, policy: VLM = vlm, requested: list[GenerateRequest] | None = None) -> None:
        engine = ServerBackend(policy, ServerConfig(name="server", base_url=url, timeout=2), tmp_path / "rollouts")

        def use() -> None:
            engine.refresh(0)
            engine.sample(requests(pairs) if requested is None else requested, SAMPLING)

        with pytest.raises(InputError, match=match) as caught:
            use()
        assert "\n" not in str(caught.value)

    with serving_adapters(model_dir, takes_adapters=False) as (url, _):
        refused(r"cannot load an adapter \(status 404: .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True", url)
    refused(r"no server answers at http.*start it, or correct base_url", url)
    with serving_adapters(model_dir) as (url, served):
        refused("a trained projector", url, make_policy(train_projector=True))
        refused("use a model in this process", url, requested=[GenerateRequest(requests(pairs)[0].prefix, prefill="A")])
        engine = ServerBackend(vlm, ServerConfig(name="server", base_url=url), tmp_path / "rollouts")
        engine.refresh(0)
        served.adapters.clear()  # it was started again in between, and knows our adapter no longer
        with pytest.raises(InputError, match="does not know 'sightline-"):
            engine.sample(requests(pairs), SAMPLING)


def test_a_server_gets_no_adapter_of_a_vision_tower(model_dir: Path, tmp_path: Path) -> None:
    """Refused before the server is asked for anything: none listens here."""
    vlm = add_lora(load_vlm(model_dir), LoraSettings(4, 8.0, targets=("q_proj",), vision_tower=True))
    engine = ServerBackend(vlm, ServerConfig(name="server", base_url="http://127.0.0.1:9"), tmp_path / "rollouts")
    with pytest.raises(InputError, match=r"cannot load an adapter of a vision tower; set lora\.vision_tower=false"):
        engine.refresh(0)
    assert not (tmp_path / "rollouts").exists()
