"""File layouts of published datasets and other trainers: import into Sightline's records, and export.

`registry` lists the layouts, `raw` reads files, `importing` and `exporting` are the stages.
"""
