"""From source files to a cohort, its report, and the contract that its events kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from flows import registry
from flows.progress import say, steps
from flows.stages.source import SourceState
from flows.workspace.job import Job
from pipeline.core.config import SplitConfig, reader_options
from pipeline.core.digest import digest_file
from pipeline.core.types import Cohort, ContractResult, IngestReport, Provenance
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.source_tables import SourceTables, require_some
from pipeline.store import Made
from pipeline.validation import contracts
from pipeline.validation.site_contract import check_site_contract, read_contract


def ingest(job: Job) -> Made[Cohort]:
    """Source -> (Cohort, IngestReport, ContractResult of the events)."""
    config, state = job.config, SourceState(job)
    options = reader_options(config.source)
    withdrawn = state.withdrawn
    site = None if config.cohort.contract is None else read_contract(config.cohort.contract)
    if site is not None and site.others:
        say(f"  not about a cohort, so not checked: {', '.join(site.others)} (a suite's meta says what its rows are)")
    plan = {
        "source": {"kind": config.source.kind, "content": state.content(), **registry.brought(registry.READERS)},
        "cohort": config.cohort.model_dump(mode="json", exclude={"contract", "mapping"}),
        "mapping": _mapping_digest(config.cohort.mapping),
        "split_key": job.secret("split").fingerprint,
        **({} if site is None else {"contract": {"digest": site.digest}}),
        **({"withdrawn": withdrawn.fingerprint} if withdrawn.marks else {}),
    }

    def make(provenance: Provenance) -> tuple[Cohort, IngestReport, ContractResult]:
        import polars as pl

        from pipeline.ingest.cohort.build import build_cohort
        from pipeline.ingest.cohort.stay_blocks import stay_blocks
        from pipeline.ingest.cohort.task_labels import latest_hour
        from pipeline.ingest.kept.quarantine import write_quarantine
        from pipeline.ingest.sources.readers import read_source

        mapping = load_mapping(config.cohort.mapping)
        with steps("reading", "rows/s") as on_step:
            horizon = config.cohort.step_hours * config.cohort.n_steps
            until = latest_hour(mapping, horizon, config.cohort.tasks)
            tables = read_source(
                config.source.kind,
                mapping=mapping,
                until_hours=until,
                pieces=state.pieces,
                withdrawn=withdrawn,
                on_step=on_step,
                scratch=job.store.scratch,
                readers=registry.readers(),
                **options,
            )
        state.finish()
        write_quarantine(config.workspace, config.name, tables.quarantine)
        require_some(tables)
        own = {variable.name for variable in mapping.variables}
        series = {source: name for source, name in mapping.source_names.items() if name in own}
        apart = {*mapping.static_sources, *mapping.source_names} - set(series)  # statics, labels: no series, no rule
        events = (part.events.filter(~pl.col("variable").is_in(sorted(apart))) for _, part in stay_blocks(tables))
        contract = contracts.check_event_blocks(events, mapping.variables, source_names=series)
        contracts.require(contract)
        cohort, report = build_cohort(
            tables,
            mapping,
            step_hours=config.cohort.step_hours,
            n_steps=config.cohort.n_steps,
            tasks=config.cohort.tasks,
            split=_split(job, tables, config.cohort.split),
            scratch=job.store.scratch,
        )
        if tables.spilled is not None:
            tables.spilled.close()
        cohort = dataclasses.replace(cohort, provenance=provenance, subjects_known=tables.subjects_known)
        if site is not None:
            contract = contracts.both(contract, check_site_contract(cohort, report, site))
            contracts.require(contract)
        return cohort, report, contract

    made = job.once("ingest", (), plan, None, make, [])
    state.marks.save()
    return made


def _split(job: Job, tables: SourceTables, split: SplitConfig) -> Any:
    from pipeline.ingest.splits import given_split, keyed_hash_split, site_split, time_split, with_tuning

    def hashed(held_out: float) -> Any:
        subjects = tables.stays["subject_id"].to_numpy()
        return keyed_hash_split(subjects, job.secret("split"), split.tuning, held_out)

    if split.kind == "given":
        return given_split(tables)
    if split.kind == "site":
        part = site_split(tables, split.tuning_sites, split.held_out_sites)
        return part if split.tuning_sites else with_tuning(part, hashed(0.0))
    if split.kind == "time":
        return time_split(tables, split.tuning, split.held_out)
    return hashed(split.held_out)


def _mapping_digest(mapping: str) -> str:
    return digest_file(Path(mapping)) if mapping.endswith(".toml") else mapping
