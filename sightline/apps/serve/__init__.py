"""An OpenAI-compatible server with limits, a request log and feedback: a proxy in front of vLLM or Transformers.

`engine` starts the model server, `proxy` forwards requests, `run` manages both.
"""
