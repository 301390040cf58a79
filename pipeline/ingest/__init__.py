"""Source files -> long events -> a cohort on a regular grid -> prepared series in [0, 1].

One reader per source format (`readers.READERS`), one declarative mapping per meaning of the columns
(`mappings/*.toml`), one grid (`cohort`), one transform to [0, 1] (`scaling`). Import from the modules.
"""
