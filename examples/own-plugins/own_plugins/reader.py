"""One line of JSON per stay: {"stay": "7", "patient": "3", "died": 1, "events": [[0.5, "HR", 80.0], ...]}."""

import json

import polars as pl

from pipeline.ingest.source_tables import EVENT_SCHEMA, SourceTables, drop_unusable, totals


def read_json_lines(*, stays, subject, on_step):
    lines = [json.loads(line) for line in stays.read_text(encoding="utf-8").splitlines()]
    rows = [(line["stay"], *event) for line in lines for event in line.pop("events")]
    events, dropped = drop_unusable(pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row"), missing_codes=())
    on_step(1, 1, float(len(rows)))
    return SourceTables(
        events=events,
        stays=pl.DataFrame(lines, infer_schema_length=None).rename({"stay": "stay_id", subject: "subject_id"}),
        rows_read=len(rows),
        rows_dropped=totals(dropped),
        dropped_by_variable=dropped,
        subjects_known=True,
        source=stays.name,
    )


READERS = {"json_lines": read_json_lines}
