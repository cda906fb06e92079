"""Why a request is not passed on: a status and one sentence."""


class Refused(Exception):
    """Why a body is not passed on, as a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
