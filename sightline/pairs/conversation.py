"""What was asked, as one plain text: for models that are told about a conversation instead of taking part in it."""

import re
from itertools import count

from sightline.data.turns import messages, to_turns
from sightline.models.prompts import Prefix
from sightline.records.rows import IMAGE, Turn


def told(prefix: Prefix) -> str:
    """The prompt, with the turns before it where there are any; pictures inside the text are `[picture 1]` and so on.

    Pictures that stand before everything else are not mentioned: whoever is told sees them there.

    Raises:
        InputError: the text has places for another number of images.
    """
    where = f"prompt {prefix.prompt[:60]!r}"
    history, prompt = to_turns(messages(prefix.history, prefix.prompt, len(prefix.images), where))
    turns = (*history, Turn(role="user", text=prompt))
    lines = (f"{turn.role.replace('-', ' ').capitalize()}: {turn.text}" for turn in turns)
    text = "\n".join(lines) if history else prompt
    number = count(1)
    return re.sub(re.escape(IMAGE), lambda _: f"[picture {next(number)}]", text)
