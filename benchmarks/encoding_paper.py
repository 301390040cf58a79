"""The encoding paper's experiment on public data: `python benchmarks/encoding_paper.py run|report --journal FILE`.

Thakur et al., Nat Commun 15:1582 (2024), train four networks on raw and on encoded records, compare the AUROC of
in-hospital death, and probe the frozen networks' embeddings for sex and for phenotypes. Here: PhysioNet 2012 sets A and
B (8,000 stays, 48 hourly steps x 44 channels, public ranges, no masks), published split and repeats of it, the other
six tasks in place of the phenotypes. Inputs, networks and protocol: `encoding_paper_inputs`, `encoding_paper_models`.

`run` does cells in order of priority and appends each to the journal, so that it can be stopped and continued at any
time; `report` makes benchmarks/results/encoding_paper.json, the figures and the tables of docs/benchmarks/encoding-
paper.md from whatever the journal holds. Cells with `part = "tuning"`, on which settings were chosen, never see a held-
out stay of the published split.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from encoding_paper_information import information
from encoding_paper_inputs import (
    INPUTS,
    RAW,
    SEED,
    SETTINGS,
    SEX,
    digest,
    encoded,
    load,
    repeated_split,
    repeated_tuning_split,
    standardised,
    summaries,
)
from encoding_paper_models import (
    CLASSICAL,
    NETWORKS,
    Parts,
    classical_scores,
    embedding,
    fresh_network,
    probe_auroc,
    quality,
    train_selected,
)
from encoding_paper_report import write_report
from threadpoolctl import threadpool_limits

from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import Split
from pipeline.probes.training import predict

TASK = "in_hospital_death"
MAIN = (RAW, "RQE (0, .5)", "RP time", "RQE (0, 1)")
N_SPLITS = 10
N_KEYS = 10
KEY_SWEEP = ("RQE (0, .5)", "RQE (0, 1)", "RP time", "RP time, orthogonal")


@dataclass(frozen=True)
class Cell:
    """One line of the journal."""

    model: str  # a network, a classical model, or PROBE: linear probes on the input itself
    input: str
    split: int
    seed: int = 0
    key: int = 0
    part: str = "held_out"  # where it is tested; "tuning": all inside the published split's other stays


PROBE: Final = "probe of the input"
FIELDS = tuple(field.name for field in dataclasses.fields(Cell))


def plan(n_splits: int = N_SPLITS) -> Iterator[Cell]:
    """Everything, the most wanted first; the same cell may be wanted twice."""
    splits, logistic = range(n_splits), CLASSICAL[0]
    cheap, dear = list(NETWORKS)[:2], list(NETWORKS)[2:]
    for split in splits:
        yield from (Cell(logistic, name, split, key=split, part="tuning") for name in SETTINGS)
        yield from (Cell(logistic, name, split) for name in INPUTS)
    yield from (Cell(PROBE, name, split) for split in splits[:2] for name in INPUTS)
    yield from (Cell(model, name, 0) for name in MAIN for model in NETWORKS)
    yield from (Cell(model, name, 0) for name in ("RP fresh", "RP variables") for model in cheap)
    for networks in (cheap, dear):
        yield from (Cell(model, name, split) for split in splits[1:5] for name in MAIN[:3] for model in networks)
    yield from (Cell(model, name, 0) for name in ("RP fresh", "RP variables") for model in dear)
    yield from (Cell(model, MAIN[3], split) for split in splits[1:5] for model in NETWORKS)
    yield from (Cell(logistic, name, 0, key=key) for key in range(1, N_KEYS) for name in KEY_SWEEP)
    yield from (Cell(model, name, 0, key=key) for key in (1, 2) for name in MAIN[1:3] for model in NETWORKS)
    yield from (Cell(CLASSICAL[1], name, split) for split in splits for name in INPUTS)
    yield from (Cell(CLASSICAL[1], name, 0, key=key) for key in range(1, N_KEYS) for name in KEY_SWEEP)
    yield from (Cell(CLASSICAL[1], name, split, key=split, part="tuning") for split in splits for name in SETTINGS)
    yield from (Cell(PROBE, name, split) for split in splits[2:] for name in INPUTS)
    for seed in range(5):
        yield from (Cell(model, name, split, seed) for split in splits for name in MAIN for model in NETWORKS)
    yield from (Cell(model, name, split) for split in splits for name in INPUTS for model in NETWORKS)


class Bench:
    """The stays, and the input last asked for."""

    def __init__(self, max_stays: int | None, max_epochs: int) -> None:
        self.stays = load()
        self.rows = np.arange(len(self.stays.features) if max_stays is None else max_stays)
        self.max_epochs = max_epochs
        self.death = self.stays.labels(TASK)
        self._input: tuple[tuple[str, int], np.ndarray] | None = None

    def input(self, name: str, key: int) -> np.ndarray:
        """An encoding of the stays in use."""
        if self._input is None or self._input[0] != (name, key):
            self._input = (name, key), encoded(self.stays, name, key)[self.rows]
        return self._input[1]

    def parts(self, cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows in use of the three parts, stays without an outcome left out."""
        cut = repeated_tuning_split if cell.part == "tuning" else repeated_split
        where = cut(len(self.death), cell.split)[self.rows]
        known = np.isfinite(self.death[self.rows])
        train, tuning, held_out = (np.flatnonzero((where == s) & known) for s in Split)
        return train, tuning, held_out

    def attributes(self) -> dict[str, np.ndarray]:
        """What the probes look for: sex, and the tasks that the network was not trained on."""
        others = [task.name for task in self.stays.cohort.tasks if task.name != TASK]
        return {SEX: self.stays.sex[self.rows]} | {name: self.stays.labels(name)[self.rows] for name in others}

    def result(self, cell: Cell) -> dict[str, Any]:
        """Train, test and probe."""
        features = self.input(cell.input, cell.key)
        started = time.process_time()
        if cell.model == PROBE:
            found = self._input_probe(cell)
        elif cell.model in CLASSICAL:
            found = self._classical(cell, summaries(features))
        else:
            found = self._network(cell, features)
        return {**asdict(cell), "digest": digest(features), **found, "cpu_seconds": time.process_time() - started}

    def _classical(self, cell: Cell, x: np.ndarray) -> dict[str, Any]:
        train, tuning, held_out = self.parts(cell)
        test, y = tuning if cell.part == "tuning" else held_out, self.death[self.rows]
        scores = classical_scores(cell.model, x[train], y[train], x[test], child_seed(SEED, "boosting", cell.seed))
        return quality(y[test], scores) | ({"scores": _short(scores)} if cell.part == "held_out" else {})

    def _input_probe(self, cell: Cell) -> dict[str, Any]:
        """What a receiver of the encoded records reads off them, with and without the channel that holds the sex."""
        train, _, held_out = self.parts(cell)
        found = self._probes(summaries(self.input(cell.input, cell.key)), train, held_out)
        withheld = summaries(encoded(self.stays.without_sex(), cell.input, cell.key)[self.rows])
        found["sex, its channel withheld"] = self._probes(withheld, train, held_out)[SEX]
        return {"probes": {"input": found}}

    def _probes(self, x: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
        return {
            name: round(probe_auroc(x[train], y[train], x[held_out], y[held_out]), 5)
            for name, y in self.attributes().items()
        }

    def _network(self, cell: Cell, features: np.ndarray) -> dict[str, Any]:
        train, tuning, held_out = self.parts(cell)
        x, y = standardised(features, train), self.death[self.rows]
        seed = child_seed(SEED, "network", cell.split, cell.seed)
        network = fresh_network(cell.model, x.shape, seed)
        probes = {}
        if cell.seed == 0:
            probes["untrained"] = self._probes(embedding(network, x), train, held_out)
        selected = train_selected(
            network, Parts(*((x[rows], y[rows]) for rows in (train, tuning))), seed, self.max_epochs
        )
        scores, hidden = predict(network, x[held_out])[:, 0], embedding(network, x)
        probes["trained"] = self._probes(hidden, train, held_out)
        found = {**quality(y[held_out], scores), **asdict(selected), "probes": probes, "scores": _short(scores)}
        if (cell.split, cell.seed, cell.key) == (0, 0, 0):
            random = generator(SEED, "information", cell.model, cell.input)
            found["information"] = information(x[held_out], hidden[held_out], y[held_out], random)
        return found


def _short(scores: np.ndarray) -> list[float]:
    return [float(f"{score:.5g}") for score in scores]


def run(arguments: argparse.Namespace) -> None:
    """Do the plan's cells that the journal lacks."""
    threadpool_limits(1)
    torch.set_num_threads(1)
    journal: Path = arguments.journal
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    done = {Cell(**{name: row[name] for name in FIELDS}) for row in rows}
    digests = {(row["input"], row["key"]): row["digest"] for row in rows}
    bench = Bench(arguments.stays, arguments.epochs)
    for cell in plan(arguments.splits):
        if cell in done or (arguments.models and cell.model not in arguments.models):
            continue
        while arguments.pause_file and arguments.pause_file.exists():
            time.sleep(20)
        row = bench.result(cell)
        if digests.setdefault((cell.input, cell.key), row["digest"]) != row["digest"]:
            raise SystemExit(f"the journal holds another encoding of {cell.input} under key {cell.key}: start afresh")
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        done.add(cell)
        auroc = f" {row['auroc']:.4f}" if "auroc" in row else ""
        print(f"{cell}{auroc}, {row['cpu_seconds']:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Run or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--journal", type=Path, required=True, help="JSON lines, a cell each; appended to")
    parser.add_argument("--pause-file", type=Path, help="wait between cells while this file exists")
    parser.add_argument("--models", nargs="*", help="only these models")
    parser.add_argument("--splits", type=int, default=N_SPLITS)
    parser.add_argument("--stays", type=int, help="only the first so many (to try it out)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "encoding_paper.json")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs", help="page and figures")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments)
    else:
        write_report(arguments.journal, arguments.out, arguments.docs)


if __name__ == "__main__":
    main()
