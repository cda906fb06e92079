"""Access to the language model inside a model of Transformers."""

from typing import Any


def expose_decoder(model: Any) -> None:
    """Make `get_decoder` and `get_output_embeddings` of the class of `model` return the language model and its head.

    Some classes contain a whole causal language model, head included: their `get_decoder` returns that model and their
    `get_output_embeddings` None. The class is changed and not the object, so copies and adapters keep the change.
    """
    kind, inner = type(model), type(model).get_decoder
    causal = model.get_decoder()
    if causal is model or model.get_output_embeddings() is not None or causal.get_output_embeddings() is None:
        return

    def get_decoder(self: Any) -> Any:
        return inner(self).get_decoder()

    def get_output_embeddings(self: Any) -> Any:
        return inner(self).get_output_embeddings()

    kind.get_decoder, kind.get_output_embeddings = get_decoder, get_output_embeddings
