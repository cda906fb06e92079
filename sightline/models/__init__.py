"""Models: open any vision-language model, prove how it may be computed, score, sample and save."""

import logging

# PEFT imports bitsandbytes wherever it is installed, which then warns of a CPU kernel that it fetches from the hub.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
