"""The embedded lab: a drawn world with exact ground truth and the small VLM that lives in it.

Nothing outside this folder imports it; benchmarks and commands of the lab are reached by name through the registries.
"""

from pathlib import Path

#: The committed base VLM, an ordinary Transformers checkpoint.
BASE = Path(__file__).parent / "base"
#: Configs of the stages as the demo runs them.
CONFIGS = Path(__file__).parent / "configs"
