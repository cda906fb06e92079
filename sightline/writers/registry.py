"""Writers by name: the config class of each, whose `open` makes the writer; imported only when writers are used."""

from sightline.registry import Entry, Registry


def _foreign(target: str, origin: str) -> Entry:
    return Entry(target, f"From {origin}.")


_HERE = "sightline.writers"
WRITERS: Registry[Entry] = Registry(
    "writer",
    "sightline.writers",
    _foreign,
    {
        "oracle": Entry(
            f"{_HERE}.writer:OracleWriterConfig", "Ground truth and rules, where samples have it (the lab)."
        ),
        "endpoint": Entry(f"{_HERE}.endpoint:EndpointWriterConfig", "A model behind an OpenAI-compatible server."),
        "policy": Entry(f"{_HERE}.endpoint:PolicyWriterConfig", "The model that is to be aligned."),
    },
)
