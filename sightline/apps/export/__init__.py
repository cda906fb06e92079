"""A model made ready for others: adapter merged, weights in bfloat16 or quantized, with card, checksums and a check."""
