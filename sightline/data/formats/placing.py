"""How a pair of ours is spelled out for peers that mark every image in the text, and what they cannot be told."""

from sightline.data.formats.drafts import BadRow, Columns
from sightline.data.tiers import fold
from sightline.data.turns import messages
from sightline.errors import InputError
from sightline.records.rows import IMAGE, Pair, Turn

_OTHER_MEDIA = ("<video>", "<audio>")


def spelled_out(pair: Pair, where: str) -> list[Turn]:
    """The turns of history and prompt, tiers folded, `<image>` for every image where the text says so, else in front.

    Raises:
        InputError: the numbers disagree, or a text says what peers take for an image, a video or a sound.
    """
    messages(pair.history, pair.prompt, len(pair.images), where)  # the numbers agree
    turns = fold([*pair.history, Turn(role="user", text=pair.prompt)], where)
    if not any(IMAGE in turn.text for turn in turns):
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        lead = IMAGE * len(pair.images) + ("\n" if pair.images else "")
        turns[first] = Turn(role="user", text=lead + turns[first].text)
    answers = (pair.chosen, pair.rejected)
    for mark, texts in [(IMAGE, answers), *((mark, (*answers, *(t.text for t in turns))) for mark in _OTHER_MEDIA)]:
        if any(mark in text for text in texts):
            raise InputError(
                f"{where}: a text says {mark}, which others take for the thing itself; reword or drop the row"
            )
    return turns


def refuse_media(columns: Columns) -> None:
    """Refuse a row that has more than images.

    Raises:
        BadRow: it has videos or sounds.
    """
    for name in ("videos", "audios"):
        if columns.get(name):
            raise BadRow(f"the row has {name}, which are not read", "video or sound")
