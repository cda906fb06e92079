"""Models: open any vision-language model, prove how it may be computed, score, sample and save."""

import logging
import warnings

# PEFT imports bitsandbytes wherever it is installed, which then warns of a CPU kernel that it fetches from the hub, and
# of a deprecated function inside torch.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=r".torch\.jit\.script_method. is deprecated", category=DeprecationWarning)
