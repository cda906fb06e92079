"""A model behind a server of the OpenAI kind, with a door in front that limits, logs and takes feedback.

It answers nothing itself: vLLM or Transformers do. `engine` starts them, `proxy` is the door, `run` holds both.
"""
