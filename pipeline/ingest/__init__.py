"""Source files -> long events -> a cohort on a regular grid -> prepared series in [0, 1].

One reader per source format (`readers.READERS`), one for all that a mapping's layout describes (`event_tables`); one
declarative mapping per meaning of the columns (`mappings/*.toml`), one grid (`cohort`), one transform to [0, 1]
(`scaling`). A cohort leaves as MEDS, and returns (`meds`). Import from the modules.
"""
