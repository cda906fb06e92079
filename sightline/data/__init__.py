"""Readers and writers of what people have: images, samples, preference pairs. Knows nothing of preferences' maths.

Bad rows and bad images are refused here, with the row and the remedy, before any stage spends time on them. Opening
images is `images`, prompts with references `samples`, datasets of pairs `preference_dataset`.
"""
