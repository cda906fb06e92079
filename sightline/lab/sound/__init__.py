"""The lab's second kind of media: what a scene sounds like, drawn as spectrograms, and a model that hears them.

Sounds and pictures are of the same world and differ: some of what is seen is silent, some of what is heard is not in
the picture. `study` composes the model that hears with the lab's base, which sees.
"""
