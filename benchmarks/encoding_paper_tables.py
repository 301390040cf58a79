"""The tables of docs/benchmarks/encoding-paper.md, from the benchmark's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]


def fill(page: str, result: Json) -> str:
    """The page with every `<!-- table NAME -->` ... `<!-- end -->` filled anew; what stands between is replaced."""
    made = {
        "auroc": _scores(result, "auroc"),
        "auprc": _scores(result, "auprc"),
        "differences": _differences(result),
        "settings": _settings(result),
        "keys": _keys(result),
        "probes": _probes(result),
        "probe differences": _probe_differences(result),
        "information": _information(result),
        "ladder": _ladder(result),
    }

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n\n{made[match[1]]}\n\n<!-- end -->"

    return re.sub(r"<!-- table ([a-z ]+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def fill_file(path: Path, result: Json) -> None:
    """`fill` in place."""
    path.write_text(fill(path.read_text(encoding="utf-8"), result), encoding="utf-8")


def _scores(result: Json, metric: str) -> str:
    models = _models(result["utility"])
    rows = []
    for name, entries in result["utility"].items():
        cells = [entries[m][metric] if m in entries and metric in entries[m] else None for m in models]
        rows.append([name, *(f"{_n(c['mean'])} ({_sd(c)}; {c['n_trainings']})" if c else "-" for c in cells)])
    return _table(["", *models], rows)


def _sd(cell: Json) -> str:
    return _n(cell["split_sd"]) if cell["split_sd"] is not None else "one split"


def _differences(result: Json) -> str:
    rows = []
    for name, entries in result["utility"].items():
        for model, entry in entries.items():
            found = entry.get("minus_raw", {})
            if not found.get("auroc"):
                continue
            one = found["auroc_published_split"]
            rows.append([name, model, *_interval_cells(found["auroc"]), _bootstrap(one)])
    head = ["encoded minus raw, AUROC", "model", "mean", "splits", "t interval", "corrected", "bootstrap, one split"]
    return _table(head, rows)


def _interval_cells(found: Json) -> list[str]:
    intervals = [_interval(found.get(kind), found.get(f"{kind.split('_')[0]}_within_margin")) for kind in _KINDS]
    return [_signed(found["mean"]), str(found["n_splits"]), *intervals]


_KINDS = ("t_interval", "corrected_interval")


def _bootstrap(found: Json | None) -> str:
    return f"{_signed(found['difference'])} {_interval(found['interval'], found['within_margin'])}" if found else "-"


def _interval(interval: Sequence[float] | None, within: bool | None) -> str:
    """Bold = inside the margin."""
    if interval is None:
        return "-"
    text = f"[{_signed(interval[0])}, {_signed(interval[1])}]"
    return f"**{text}**" if within else text


def _settings(result: Json) -> str:
    settings = result["settings_on_tuning_stays"]
    models = _models(settings)
    rows = []
    for name, entries in settings.items():
        cells = [name]
        for model in models:
            e = entries.get(model)
            if e is None:
                cells.append("-")
            elif "minus_raw" in e:
                cells.append(f"{_signed(e['minus_raw'])} ({_n(e['sd'])}; {_signed(e['worst'])}; {e['n']})")
            else:
                cells.append(f"{_n(e['auroc'])}, the reference ({e['n']})")
        rows.append(cells)
    return _table(["setting", *models], rows)


def _keys(result: Json) -> str:
    rows = []
    for name, entries in result["keys"].items():
        for model, e in entries.items():
            ends = f"{_signed(e['smallest'])} to {_signed(e['largest'])}"
            rows.append([name, model, str(e["n_keys"]), _signed(e["mean"]), _n(e["sd"]), ends])
    return _table(["minus raw, published split", "model", "keys", "mean", "sd", "range"], rows)


def _probes(result: Json) -> str:
    probes = result["probes"]
    columns = [
        *((f"{model}, {where}", where, model) for where in ("trained", "untrained") for model in _any(probes, where)),
        *(("the records themselves", "input", model) for model in _any(probes, "input")),
    ]
    rows = []
    for name in probes.get("input", {}):
        for what in ("sex", "macro of six tasks"):
            cells = [probes.get(where, {}).get(name, {}).get(model) for _, where, model in columns]
            rows.append([name, what, *(_n(c[what]["mean"]) if c else "-" for c in cells)])
        withheld = next(iter(probes["input"][name].values())).get("sex, its channel withheld")
        if withheld:
            rows.append([name, "sex, its channel withheld", *("-" for _ in columns[:-1]), _n(withheld["mean"])])
    return _table(["input", "probe", *(label for label, _, _ in columns)], rows)


def _probe_differences(result: Json) -> str:
    rows = []
    for name, entries in result["probes"].get("trained", {}).items():
        for model, entry in entries.items():
            for what in ("sex", "macro of six tasks"):
                found = entry.get(f"{what} minus raw")
                if found:
                    rows.append([name, model, what, _signed(found["mean"]), str(found["n_splits"]), _t(found)])
    return _table(["encoded minus raw, trained network", "model", "probe", "mean", "splits", "t interval"], rows)


def _t(found: Json) -> str:
    return _interval(found.get("t_interval"), None)


def _information(result: Json) -> str:
    columns = {
        "I(X;T), KSG": "input_embedding_ksg",
        "shuffled (truth 0)": "input_embedding_ksg_shuffled_truth_0",
        "Gaussian alike: truth": "gaussian_same_correlations_truth",
        "its KSG": "gaussian_same_correlations_ksg",
        "I(X;T), binned": "input_embedding_binned",
        "I(T;Y), binned": "embedding_label_binned",
        "labels shuffled (truth 0)": "embedding_shuffled_label_binned_truth_0",
    }
    networks = result["information_plane"]["networks"]
    return _table(
        ["network", *columns],
        [[name, *(f"{values[key]:.2f}" for key in columns.values())] for name, values in networks.items()],
    )


def _ladder(result: Json) -> str:
    ladder = result["information_plane"]["ksg_where_the_truth_is_known"]
    rows = [["KSG says", *(f"{row['ksg']:.2f}" for row in ladder)]]
    return _table(["truth (nats)", *(f"{row['truth']:g}" for row in ladder)], rows)


def _any(probes: Json, where: str) -> list[str]:
    return list(dict.fromkeys(model for entries in probes.get(where, {}).values() for model in entries))


def _models(table: Json) -> list[str]:
    """In the order of first appearance; the mean of several is no model."""
    found = dict.fromkeys(model for entries in table.values() for model in entries)
    return [model for model in found if not model.startswith("mean of")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _n(value: float) -> str:
    """A number without its leading 0, three decimals."""
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _signed(value: float) -> str:
    return f"{'+' if round(value, 4) >= 0 else '-'}{f'{abs(value):.4f}'.replace('0.', '.', 1)}"
