"""The training config is closed, with no default for the numbers that decide the science."""

from pathlib import Path

import pytest

from sightline import lab
from sightline.config import load_config
from sightline.errors import InputError
from sightline.losses.objective import Term
from sightline.models.adapters import LoraSettings
from sightline.train.config import LoraConfig, TrainConfig

GIVEN = ("loss.name=dpo", "loss.beta=0.1", "optim.lr=1e-4", "epochs=1")


def test_the_least_that_must_be_said_is_enough() -> None:
    config = load_config(TrainConfig, None, GIVEN)
    assert config.terms == (Term("dpo", 1.0, {"beta": 0.1}),)
    assert config.optim.lr == 1e-4 and config.epochs == 1 and config.max_steps is None
    assert config.autocast is False


def test_it_is_read_from_a_file_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "loss: {name: dpo, beta: 0.2}\noptim: {lr: 1e-4}\nmax_steps: 30\nlora: {targets: [q_proj, v_proj]}\n"
    )
    config = load_config(TrainConfig, path, ["loss.beta=0.5", "max_steps=null", "epochs=2"])
    assert config.terms == (Term("dpo", 1.0, {"beta": 0.5}),) and config.epochs == 2
    assert config.lora is not None and config.lora.settings() == LoraSettings(
        16, 32.0, 0.0, ("q_proj", "v_proj"), train_projector=False
    )


def test_a_config_survives_the_manifest() -> None:
    config = load_config(TrainConfig, None, GIVEN)
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_keys_that_came_later_are_told_where_they_are_set_so_that_old_runs_go_on() -> None:
    """A manifest of the time before has neither key; the config of the same run must have the same hash."""
    plainly = load_config(TrainConfig, None, GIVEN).model_dump(mode="json")
    assert "blind" not in plainly and "vision_tower" not in plainly["lora"]
    more = (*GIVEN[2:], "loss={name: v-dpo, beta: 0.1, gamma: 2.0, guide: policy}", "lora.vision_tower=true")
    config = load_config(TrainConfig, None, [*more, "blind=zero-image"])
    assert config.model_dump(mode="json")["blind"] == "zero-image"
    assert config.model_dump(mode="json")["lora"]["vision_tower"] is True
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_losses_are_a_list_with_weights(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "loss:\n- {name: dpo, weight: 0.8, beta: 0.1}\n- {name: sft, weight: 1}\noptim: {lr: 1e-4}\nepochs: 1\n"
    )
    config = load_config(TrainConfig, path)
    assert config.terms == (Term("dpo", 0.8, {"beta": 0.1}), Term("sft", 1.0, {}))
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config
    assert load_config(TrainConfig, path, ["loss=[{name: sft}]"]).terms == (Term("sft", 1.0, {}),)


def test_the_config_of_mpo_is_the_paper_s() -> None:
    config = load_config(TrainConfig, Path(lab.__file__).with_name("configs") / "mpo.yaml")
    beta = {"beta": 0.1}
    assert config.terms == (Term("dpo", 0.8, beta), Term("bco", 0.2, beta), Term("sft", 1.0, {}))


@pytest.mark.parametrize("name", ["online", "mixed"])
def test_shipped_sources_load_and_open_with_their_command(name: str) -> None:
    path = Path(lab.__file__).with_name("configs") / f"{name}.yaml"
    assert load_config(TrainConfig, path).source.name == name
    assert path.read_text().startswith("# sightline train ")
    assert path.read_text().splitlines()[0].endswith(f"--config sightline/lab/configs/{name}.yaml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(TrainConfig, None, GIVEN).epochs = 3
    with pytest.raises(ValueError, match="frozen"):
        LoraConfig().rank = 3


ONLINE = "{name: online, judge: {name: self}}"
BDHS = "{name: bdhs, rho: 0.9, average: %s}"
DENSE = "loss={name: dpo-dense, beta: 0.5, gamma: 5}"
AVERAGED = "loss={name: dpo-averaged, beta: 0.1, gamma: 0.5}"


@pytest.mark.parametrize(
    ("loss", "source", "message"),
    [
        (DENSE, ONLINE, "source: pairs of online have no correction spans, which dpo-dense needs; train on given"),
        (DENSE, BDHS % "true", "source: pairs of bdhs have no correction spans"),
        (DENSE, f"{{name: mixed, p: 0.5, second: {ONLINE}}}", "source: pairs of online have no correction spans"),
        (AVERAGED, ONLINE, "source: pairs of online have no second rejected answer, which dpo-averaged needs"),
        (AVERAGED, BDHS % "false", "no second rejected answer, which dpo-averaged needs; set average=true on a bdhs"),
        (
            "loss=[{name: sft, weight: 1}, {name: dpo-dense, weight: 1, beta: 0.5, gamma: 5}]",
            ONLINE,
            "which dpo-dense needs",
        ),
    ],
)
def test_a_loss_whose_need_the_source_never_meets_is_refused_at_the_door(loss: str, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(TrainConfig, None, [loss, "optim.lr=1e-4", "epochs=1", f"source={source}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "source"),
    [
        (AVERAGED, BDHS % "true"),
        (AVERAGED, "{name: offline}"),
        (DENSE, "{name: offline}"),
        ("loss={name: mdpo, beta: 0.1}", ONLINE),
        ("loss={name: dpo, beta: 0.1}", BDHS % "false"),
    ],
)
def test_a_loss_whose_need_the_source_may_meet_is_taken(loss: str, source: str) -> None:
    config = load_config(TrainConfig, None, [loss, "optim.lr=1e-4", "epochs=1", f"source={source}"])
    assert config.source.name in source


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("loss.name=dpo", "optim.lr=1e-4", "epochs=1"), "loss.beta is missing"),
        ((*GIVEN, "loss.beta=0"), "loss.beta is 0: the loss dpo needs a number greater than 0"),
        ((*GIVEN, "loss.beta=-0.1"), "loss.beta is -0.1"),
        ((*GIVEN, "loss.bta=0.1"), "loss.bta: the loss dpo has no such parameter"),
        ((*GIVEN, "loss.name=dop"), "did you mean 'dpo'"),
        ((*GIVEN, "loss.weight=0"), "loss.weight is 0.0: dpo needs a number greater than 0"),
        ((*GIVEN, "loss=[]"), "loss is an empty list"),
        ((*GIVEN, "loss=[{name: dpo, weight: 1, beta: 0.1}, {name: sft}]"), "loss.weight is missing.*sft has none"),
        ((*GIVEN, "loss=[{name: sft, weight: 1}, {name: dpo, weight: 1, bta: 0.1}]"), "loss.1 = .*no such parameter"),
        ((*GIVEN, "loss=[3]"), "loss.0 = 3"),
        ((*GIVEN, "optim.lr=0"), "optim.lr"),
        (("loss.name=dpo", "loss.beta=0.1", "optim={}", "epochs=1"), "optim.lr"),
        ((*GIVEN, "max_steps=3"), "either epochs or max_steps"),
        (GIVEN[:3], "either epochs or max_steps"),
        ((*GIVEN, "batch_sze=3"), "batch_sze.*batch_size"),
        ((*GIVEN, "optim.warmup=0.1"), "unknown key 'optim.warmup'.*warmup_fraction"),
        ((*GIVEN, "lora.rnk=4"), "lora.rnk.*lora.rank"),
    ],
)
def test_wrong_configs_are_refused_in_one_sentence(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(TrainConfig, None, overrides)
    assert "\n" not in str(caught.value)
