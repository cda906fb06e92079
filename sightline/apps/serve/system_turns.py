"""System turns of served models whose chat template has no place for them.

A template with two roles, `user` and all others, renders a system turn as an answer. The proxy then moves its text into
the first user turn, as `models.encoding` does for scoring and sampling. Templates that refuse system turns still do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sightline.config.problems import brief
from sightline.data.turns import merge_system_turns
from sightline.errors import InputError
from sightline.records.store import read_json

#: vLLM's option for another template.
_OPTION = "--chat-template"
_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_QUESTION, _OTHER = "What is it?", "Look closely."


def renders_system_as_answer(template: str) -> bool:
    """Whether a chat template renders a system turn as it renders an answer; False if it cannot be rendered."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def rendered(role: str, content: Callable[[str], Any]) -> str:
        turns = [{"role": role, "content": content(_OTHER)}, {"role": "user", "content": content(_QUESTION)}]
        texts, _ = render_jinja_template([turns], chat_template=template, add_generation_prompt=True)
        return str(texts[0])

    def is_same(content: Callable[[str], Any]) -> bool:
        try:
            text = rendered("system", content)
            return _OTHER in text and text == rendered("assistant", content)
        except Exception:  # noqa: BLE001 - untrusted code in a sandbox; the model server reports its errors with each call
            return False

    return is_same(lambda text: [{"type": "text", "text": text}]) or is_same(lambda text: text)


def find_template(source: str, more: Sequence[str] = ()) -> str | None:
    """The chat template of a model directory or of a hub model in the local cache; None if there is none.

    `more` are the model server's extra arguments, which may name another template.

    Raises:
        InputError: a file with the template is not JSON, or the named template is not readable.
    """
    given = _given_template(more)
    if given is not None:
        return given
    for name in _FILES:
        path = _local_file(source, name)
        if path is None:
            continue
        if path.suffix == ".jinja":
            return path.read_text(encoding="utf-8")
        content = read_json(path)
        found = content.get("chat_template") if isinstance(content, dict) else None
        if isinstance(found, list):  # several templates by name
            found = next((one.get("template") for one in found if one.get("name") == "default"), None)
        if isinstance(found, str):
            return found
    return None


def merged_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a chat completion with the texts of system turns moved into the first user turn.

    Raises:
        ValueError: a system turn has a picture.
    """
    roles = ["system" if message["role"] in ("system", "developer") else message["role"] for message in messages]
    if "system" not in roles:
        return list(messages)
    turns = [(role, _entries(message["content"])) for role, message in zip(roles, messages, strict=True)]
    if any(role == "system" and not isinstance(entry, str) for role, entries in turns for entry in entries):
        raise ValueError("the model has no system turns, so their pictures must be in a user turn")
    kept = [message for role, message in zip(roles, messages, strict=True) if role != "system"]
    return [
        {**message, "content": _content(entries)}
        for message, (_, entries) in zip(kept, merge_system_turns(turns), strict=True)
    ]


def _entries(content: str | list[dict[str, Any]]) -> list[str | dict[str, Any]]:
    if isinstance(content, str):
        return [content]
    return [part["text"] if part["type"] == "text" else part for part in content]


def _content(entries: Sequence[str | dict[str, Any]]) -> Any:
    if len(entries) == 1 and isinstance(entries[0], str):
        return entries[0]
    return [{"type": "text", "text": entry} if isinstance(entry, str) else entry for entry in entries]


def _given_template(more: Sequence[str]) -> str | None:
    """The template that `--chat-template` names in the arguments: a file or the text itself."""
    found = None
    for place, word in enumerate(more):
        if word.startswith(f"{_OPTION}="):
            found = word.removeprefix(f"{_OPTION}=")
        elif word == _OPTION and place + 1 < len(more):
            found = more[place + 1]
    if found is None or "{" in found:
        return found
    try:
        return Path(found).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{_OPTION} {found} cannot be read ({brief(error)}); name a text file") from error


def _local_file(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, name)
    return Path(found) if isinstance(found, str) else None
