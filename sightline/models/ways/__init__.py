"""The ways in which a model is computed; `base` states what a way does, the other files are one way each."""
