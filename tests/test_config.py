"""Configs: parsing of YAML and overrides; every error is one sentence with the key and the remedy."""

import re
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from sightline.config import Config, load_config
from sightline.config.loading import parse_override, read_yaml
from sightline.config.problems import all_fields
from sightline.errors import InputError


class Optimizer(Config):
    """A section with one required number."""

    lr: float
    name: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)


class Loss(Config):
    """Another."""

    beta: float


class Training(Config):
    """A config of two sections."""

    optimizer: Optimizer
    loss: Loss
    steps: int | None = None
    stop: tuple[str, ...] = ()
    mode: str = "offline"


COMPLETE = "optimizer: {lr: 1e-4}\nloss:\n  beta: 0.1\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def sentence(folder: Path, text: str | None, *overrides: str) -> str:
    """The error that a file and overrides end in; one line."""
    with pytest.raises(InputError) as caught:
        load_config(Training, None if text is None else write(folder, text), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder) + "/", "")


def test_file_then_overrides_last_one_wins(tmp_path: Path) -> None:
    config = load_config(Training, write(tmp_path, COMPLETE), ["loss.beta=0.2", "steps=7", "loss.beta=0.3"])
    assert config == Training(optimizer=Optimizer(lr=1e-4), loss=Loss(beta=0.3), steps=7)


def test_overrides_alone() -> None:
    config = load_config(
        Training, None, ["optimizer.lr=5e-5", "loss.beta=.1", "stop=[a, 'b c']", "optimizer.name=sgd=1"]
    )
    assert (config.optimizer.lr, config.loss.beta) == (5e-5, 0.1)
    assert (config.stop, config.optimizer.name) == (("a", "b c"), "sgd=1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E+3", -2000.0),
        ("3", 3),
        ("010", 10.0),
        ("0x10", 16),
        ("off", "off"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2026-01-31", "2026-01-31"),
        ("true", True),
        ("null", None),
        ("", None),
        ("'1'", "1"),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    keys, parsed = parse_override(f"a.b={text}")
    assert keys == ("a", "b")
    assert parsed == value
    assert type(parsed) is type(value)


def test_unknown_key_in_a_file_names_file_key_and_nearest(tmp_path: Path) -> None:
    text = sentence(tmp_path, "optimizer: {lrr: 1e-4}\nloss: {beta: 0.1}\n")
    assert text == "train.yaml: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"


def test_unknown_section_in_an_override(tmp_path: Path) -> None:
    text = sentence(tmp_path, COMPLETE, "optimiser.lr=3")
    assert text == "override 'optimiser.lr=3': unknown key 'optimiser'; did you mean 'optimizer'?"


def test_key_of_another_section_is_found(tmp_path: Path) -> None:
    assert sentence(tmp_path, COMPLETE, "beta=3") == "override 'beta=3': unknown key 'beta'; did you mean 'loss.beta'?"


def test_key_like_no_other_lists_the_known(tmp_path: Path) -> None:
    text = sentence(tmp_path, COMPLETE, "optimizer.zzz=3")
    assert text == "override 'optimizer.zzz=3': unknown key 'optimizer.zzz'; known keys here: lr, name, betas"


def test_missing_number_names_the_key_to_set(tmp_path: Path) -> None:
    text = sentence(tmp_path, "optimizer: {lr: 1e-4}")
    assert text == "train.yaml: key 'loss.beta' is missing; set it in a file or with loss.beta=VALUE"
    assert sentence(tmp_path, None) == (
        "config: key 'optimizer.lr' is missing (and 1 more); set it in a file or with optimizer.lr=VALUE"
    )


@pytest.mark.parametrize("value", ["fast", ".nan", ".inf", "[1]", "null"])
def test_wrong_value_names_key_and_value(tmp_path: Path, value: str) -> None:
    text = sentence(tmp_path, COMPLETE, f"loss.beta={value}")
    assert re.match(rf"override 'loss\.beta={re.escape(value)}': loss\.beta = .+: input should be a .+number", text)


def test_wrong_value_in_a_list_names_its_place(tmp_path: Path) -> None:
    text = sentence(tmp_path, "optimizer: {lr: 1e-4, betas: [0.9, high]}\nloss: {beta: 1}")
    assert text.startswith("train.yaml: optimizer.betas.1 = 'high': input should be a valid number")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a\n", "config train.yaml holds ['a']; write keys and values (key: value)"),
        (
            "loss: 1\nloss: 2\n",
            "train.yaml line 2: not YAML, key 'loss' is written twice; quote the value if it is text",
        ),
        ("loss: {beta: 1\n", "train.yaml line 2: not YAML, "),
        ("a: \x00", "train.yaml: not YAML ("),
        ("a: " + "[" * 5000, "train.yaml: not YAML (maximum recursion depth"),
        ("a: !!python/object/apply:os.system [ls]", "train.yaml line 1: not YAML, could not determine a constructor"),
    ],
)
def test_bad_yaml_names_the_line(tmp_path: Path, text: str, reason: str) -> None:
    assert sentence(tmp_path, text).startswith(reason)


@pytest.mark.parametrize("override", ["lr", "=3", "a..b=3", ".a=3", "mode=[", "steps.x=3"])
def test_malformed_override(tmp_path: Path, override: str) -> None:
    assert sentence(tmp_path, COMPLETE + "steps: 4\n", override).startswith(f"override '{override}'")


def test_missing_file_directory_and_binary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml does not exist"):
        load_config(Training, tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load_config(Training, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load_config(Training, tmp_path / "binary")


def test_override_does_not_reach_a_section_shared_by_an_anchor(tmp_path: Path) -> None:
    class Twins(Config):
        left: Loss
        right: Loss

    path = write(tmp_path, "left: &shared {beta: 1}\nright: *shared\n")
    assert load_config(Twins, path, ["left.beta=2"]) == Twins(left=Loss(beta=2), right=Loss(beta=1))


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Loss(beta=1.0).beta = 2.0


def test_all_fields_lists_sections_before_their_keys() -> None:
    names = [name for name, _ in all_fields(Training)]
    assert names[:6] == ["optimizer", "optimizer.lr", "optimizer.name", "optimizer.betas", "loss", "loss.beta"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_an_override(number: float) -> None:
    assert load_config(Loss, None, [f"beta={number!r}"]).beta == number


@given(st.text())
def test_any_override_is_read_or_refused(text: str) -> None:
    """The result is a config or an InputError with a message."""
    config, sentence = None, ""
    try:
        config = load_config(Training, None, ["optimizer.lr=1", "loss.beta=1", text])
    except InputError as error:
        sentence = str(error).strip()
    assert (config is None) == bool(sentence)
    assert config is None or "=" in text


class _Cat(Config):
    name: Literal["cat"]
    lives: int = 9


class _Dog(Config):
    name: Literal["dog"]


class _Pet(Config):
    pet: Annotated[_Cat | _Dog, Field(discriminator="name")]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("pet.name=cta", "pet.name = 'cta' is unknown; did you mean 'cat'?"),
        ("pet.name=horse", "pet.name = 'horse' is unknown; known are cat, dog"),
    ],
)
def test_a_wrong_name_among_several_sections(override: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(_Pet, None, [override])
    assert problem in str(caught.value)


def test_an_unknown_key_in_one_of_several_sections() -> None:
    with pytest.raises(InputError, match=r"unknown key 'pet\.livse'; did you mean 'pet\.lives'"):
        load_config(_Pet, None, ["pet.name=cat", "pet.livse=3"])


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("form", ["list", "merge", "override"])
def test_aliases_are_counted_with_what_they_stand_for(tmp_path: Path, form: str) -> None:
    """Nine levels of nine aliases are 400 million values in half a kilobyte."""
    text = _bomb(9)
    if form == "merge":
        text = "a0: &a0 {x: 1}\n" + "\n".join(
            f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)
        )
    began = time.monotonic()
    if form == "override":
        flow = ", ".join(text.splitlines())
        assert "more than 100,000 values" in sentence(tmp_path, COMPLETE, f"stop={{{flow}}}")
    else:
        assert re.match(r"train\.yaml line \d: not YAML, more than 100,000 values", sentence(tmp_path, text))
    assert time.monotonic() - began < 5


def test_aliases_within_bounds_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, _bomb(4))
    assert len(read_yaml(path)["a3"]) == 9


def test_an_alias_of_what_holds_it_is_refused(tmp_path: Path) -> None:
    assert "an alias contains itself" in sentence(tmp_path, "a: &a {b: [*a]}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("!!int abc", "'abc' is not a valid int"),
        ("!!float abc", "'abc' is not a valid float"),
        ("!!bool abc", "'abc' is not a valid bool"),
        ("!!int ''", "'' is not a valid int"),
        ("!!map [1]", "expected a mapping node"),
        ("!!timestamp 2020-99-99", "the tag !!timestamp is not supported"),
        ("!!binary x", "the tag !!binary is not supported"),
        ("!!set {a}", "the tag !!set is not supported"),
        ("!!nosuch 1", "the tag !!nosuch is not supported"),
        ("!mine 1", "could not determine a constructor for the tag '!mine'"),
        ("9" * 5000, "is beyond 9223372036854775807 (64 bits)"),
        ("-" + "9" * 20, "is beyond 9223372036854775807 (64 bits)"),
        ("0x" + "f" * 16, "is beyond 9223372036854775807 (64 bits)"),
        ("1e999", "the number '1e999' is too large for a float"),
    ],
)
def test_tags_and_numbers_out_of_bounds_are_sentences_with_their_line(tmp_path: Path, text: str, problem: str) -> None:
    found = sentence(tmp_path, f"{COMPLETE}\nsteps: {text}\n")
    assert found.startswith("train.yaml line 5: not YAML, ") and problem in found and len(found) < 200


def test_numbers_within_bounds_are_read() -> None:
    assert parse_override("a=9223372036854775807")[1] == 2**63 - 1
    assert parse_override("a=.inf")[1] == float("inf")


class _Values(Config):
    count: int | None = None
    share: float = 0.5
    flag: bool = False
    several: tuple[int, ...] = ()
    named: dict[str, int] = Field(default_factory=dict)
    bounded: int = Field(default=1, ge=1)
    place: Path | None = None
    mode: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    "override",
    [
        "count=true",
        "count='1'",
        "count=1.5",
        "count=1e30",
        "share=true",
        "share='0.5'",
        "flag=1",
        "flag=yes",
        "flag='true'",
        "several=[1, true]",
        "several=['1']",
        "named={x: true}",
        "bounded=true",
        "bounded=0",
    ],
)
def test_no_value_is_converted(override: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"override '{override}': ")):
        load_config(_Values, None, [override])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("count=1e3", 1000),
        ("count=null", None),
        ("share=1", 1.0),
        ("flag=true", True),
        ("several=[1, 2]", (1, 2)),
        ("named={x: 1}", {"x": 1}),
        ("bounded=2.0", 2),
        ("place=x/y", Path("x/y")),
        ("mode=b", "b"),
    ],
)
def test_what_yaml_writes_otherwise_is_read(override: str, value: object) -> None:
    found = getattr(load_config(_Values, None, [override]), override.split("=")[0])
    assert found == value and type(found) is type(value)


def test_a_config_survives_json() -> None:
    values = _Values(count=3, share=1, several=(1, 2), named={"x": 1}, place=Path("x"))
    assert _Values.model_validate_json(values.model_dump_json()) == values
    assert _Values.model_validate(values.model_dump(mode="json")) == values
