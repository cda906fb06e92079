"""Published and peers' layouts of preferences and instructions: local files in, Sightline's records out, and back.

One file a layout; `registry` knows their names. How files are opened is `raw`, how records are written `importing` and
`exporting`.
"""
