"""The embedded lab: a synthetic world with exact ground truth, and a small VLM trained on it.

No other package imports it statically; its benchmarks and commands are reached by name through the registries.
"""

from pathlib import Path

#: The committed base VLM, an ordinary Transformers checkpoint.
BASE = Path(__file__).parent / "base"
#: Configs of the stages, as the demo uses them.
CONFIGS = Path(__file__).parent / "configs"
