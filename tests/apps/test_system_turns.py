"""System turns of a served model: where its template has no place for them, they open the first user turn."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor

from sightline.apps.serve.engine import find_template, renders_system_as_answer
from sightline.apps.serve.request_parser import merged_messages
from sightline.errors import InputError
from sightline.lab import BASE
from sightline.models.encoding import encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix
from sightline.records.rows import Turn
from tests.apps.conftest import chat, data_url, door_before
from tests.judges.local_server import Act, Body, say

PATH = "/v1/chat/completions"
CHATML = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|end|>{% endfor %}"
)
#: Takes strings alone, as templates of text-only models do.
TWO_ROLES = (
    "{% for message in messages %}{{ 'Q: ' if message['role'] == 'user' else 'A: ' }}"
    "{{ message['content'] + '\\n' }}{% endfor %}"
)
REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TWO_ROLES
DROPPING = "{% for message in messages if message['role'] != 'system' %}{{ message['content'] }}{% endfor %}"
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, False),
        (TWO_ROLES, True),
        (REFUSING, False),
        (DROPPING, False),
        ("{% for %}", False),
        ("{{ ''.__class__.__mro__ }}", False),
    ],
    ids=["chatml", "two roles", "refusing", "dropping", "broken", "hostile"],
)
def test_templates_with_two_roles_are_recognized(template: str, expected: bool) -> None:
    assert renders_system_as_answer(template) is expected


def test_the_labs_template_renders_a_system_turn_as_an_answer() -> None:
    template = find_template(str(BASE))
    assert template == (BASE / "chat_template.jinja").read_text() and renders_system_as_answer(template)


def test_the_served_prompt_is_the_one_of_scoring_and_sampling() -> None:
    body: list[dict[str, Any]] = [
        SYSTEM,
        {"role": "user", "content": [{"type": "text", "text": "Is there a cup?"}]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Is it red?"},
    ]
    processor: Any = AutoProcessor.from_pretrained(BASE)  # type: ignore[no-untyped-call]
    served = processor.apply_chat_template(merged_messages(body), add_generation_prompt=True, tokenize=False)
    turns = (("system", "Be brief."), ("user", "Is there a cup?"), ("assistant", "Yes."))
    history = tuple(Turn.model_validate({"role": role, "text": text}) for role, text in turns)
    assert served == encode_prefix(load_vlm(BASE), Prefix((), "Is it red?", history)).text
    assert served.startswith("<s>USER: Be brief.\nIs there a cup? ASSISTANT: Yes.")


def test_the_text_follows_the_pictures_and_names_are_kept() -> None:
    user = {**chat("What is it?", data_url())["messages"][0], "name": "ann"}
    picture, text = user["content"]
    merged = merged_messages([SYSTEM, {"role": "developer", "content": "In English."}, user])
    opened = {**text, "text": "Be brief.\nIn English.\nWhat is it?"}
    assert merged == [{"role": "user", "content": [picture, opened], "name": "ann"}]
    alone = merged_messages([SYSTEM, {"role": "user", "content": [picture]}])
    assert alone[0]["content"] == [picture, {"type": "text", "text": "Be brief.\n"}]
    plain = [{"role": "user", "content": "Hello."}]
    assert merged_messages(plain) == plain
    assert merged_messages([SYSTEM, *plain]) == [{"role": "user", "content": "Be brief.\nHello."}]


@pytest.mark.parametrize("merges", [True, False])
def test_the_proxy_moves_system_turns_only_for_such_models(merges: bool) -> None:
    seen: list[Body] = []

    def script(body: Body, number: int) -> Act:
        seen.append(body)
        return say("A cup.")

    user = {"role": "user", "content": "What is it?"}
    with door_before(script, merges_system=merges) as client:
        assert client.post(PATH, json={"messages": [SYSTEM, user]}).status_code == 200
        drawn = {"role": "system", "content": chat("See this.", data_url())["messages"][0]["content"]}
        refused = client.post(PATH, json={"messages": [drawn, user]})
    expected = [{"role": "user", "content": "Be brief.\nWhat is it?"}] if merges else [SYSTEM, user]
    assert seen[0]["messages"] == expected
    if merges:
        assert refused.status_code == 400 and "pictures must be in a user turn" in refused.text
    else:
        assert refused.status_code == 200


def test_roles_of_stated_preferences_are_refused() -> None:
    """They are roles of rows and not of chat completions; a template would render them as answers."""
    with door_before(lambda body, number: say("A cup.")) as client:
        refused = client.post(PATH, json={"messages": [{**SYSTEM, "role": "system-info"}, chat("x")["messages"][0]]})
    assert refused.status_code == 400 and "use system, user or assistant" in refused.text


def test_the_template_is_found_wherever_models_keep_it(tmp_path: Path) -> None:
    assert find_template(str(tmp_path)) is None
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]
    for name, content, expected in (
        ("tokenizer_config.json", json.dumps({"chat_template": named}), "named"),
        ("tokenizer_config.json", json.dumps({"chat_template": "plain"}), "plain"),
        ("chat_template.json", json.dumps({"chat_template": "older"}), "older"),
        ("chat_template.jinja", "newest", "newest"),
    ):
        (tmp_path / name).write_text(content)
        assert find_template(str(tmp_path)) == expected
    assert find_template("nobody/nothing-in-the-cache") is None


def test_the_servers_own_option_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(TWO_ROLES)
    own = str(tmp_path / "own.jinja")
    for more in (("--chat-template", own), (f"--chat-template={own}",), ("--seed", "1", "--chat-template", TWO_ROLES)):
        assert find_template(str(BASE), more) == TWO_ROLES
    with pytest.raises(InputError, match=r"--chat-template \S*gone cannot be read .*; name a text file"):
        find_template(str(BASE), ("--chat-template", str(tmp_path / "gone")))
