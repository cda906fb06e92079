"""Export of a model: merged adapter, bfloat16 or quantized weights, model card, checksums, and a reload check."""
