"""The lab's second kind of media: scenes' sounds as spectrograms, and a model that hears them.

Pictures and sounds share one world but differ: some visible objects are silent, and some sounds have no visible source.
`study` composes the sound model with the lab's base, the picture model.
"""
