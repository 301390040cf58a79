"""The two figures of docs/benchmarks/encoding-paper.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

LEFT = -0.06
STYLES = {"TCN": "o", "transformer": "s", "LSTM-256": "^", "ViT": "D"}


def draw_differences(utility: dict[str, Any], out: Path, margin: float) -> None:
    """AUROC minus raw: a mark per model, the grey band is the margin, what lies off the scale is written at its edge.

    Mean and t interval over splits; with fewer than three the published split's, bootstrap over its stays (dots).
    """
    names = [name for name in utility if any("minus_raw" in entry for entry in utility[name].values())]
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.95 * len(names)))
    axes.axvspan(-margin, margin, color="0.92")
    axes.axvline(0, color="0.5", linewidth=0.8)
    labelled: set[str] = set()
    for row, name in enumerate(names):
        models = [model for model in utility[name] if utility[name][model].get("minus_raw", {}).get("auroc")]
        for place, model in enumerate(models):
            found = utility[name][model]["minus_raw"]["auroc"]
            one = utility[name][model]["minus_raw"]["auroc_published_split"] or {}
            over_splits = found.get("t_interval")
            mean = found["mean"] if over_splits or not one else one["difference"]
            low, high = over_splits or one.get("interval") or [mean] * 2
            y = row + 0.1 * (place - (len(models) - 1) / 2)
            if high < LEFT:
                axes.text(LEFT, y, f" < {model}: {mean:.2f}", fontsize=6, va="center")
                continue
            axes.plot([low, high], [y, y], color="0.3", linewidth=1, linestyle="-" if over_splits else ":")
            label = model if model not in labelled else None
            labelled.add(model)
            axes.plot(mean, y, STYLES.get(model, "x"), markersize=5, label=label, color=_colour(model))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(LEFT, -LEFT / 2)
    axes.set_xlabel(
        "AUROC of in-hospital death, encoded minus raw (95 %: line over splits, dots over stays)", fontsize=8
    )
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _save(figure, out)


def draw_probes(probes: dict[str, Any], out: Path) -> None:
    """What a linear probe reads: sex (left) and the mean over the six other tasks (right), by what it looks at."""
    names = list(probes.get("input", {}))
    figure, both = plt.subplots(1, 2, figsize=(8, 0.9 + 0.5 * len(names)), sharey=True)
    looks = (
        ("trained", "trained networks", "o", "tab:blue"),
        ("untrained", "untrained networks", "o", "tab:orange"),
        ("input", "the encoded records", "|", "black"),
    )
    for axes, what in zip(both, ("sex", "macro of six tasks"), strict=True):
        axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle=":")
        for place, (where, label, mark, colour) in enumerate(looks):
            y = [row + 0.2 * (place - 1) for row, name in enumerate(names) for _ in probes.get(where, {}).get(name, {})]
            x = [entry[what]["mean"] for name in names for entry in probes.get(where, {}).get(name, {}).values()]
            axes.plot(x, y, mark, color=colour, markersize=10 if mark == "|" else 5, alpha=0.8, label=label)
        axes.set_xlabel(f"AUROC of a linear probe: {what}")
    both[0].set_yticks(range(len(names)), names)
    both[0].invert_yaxis()
    both[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _save(figure, out)


def _colour(model: str) -> str:
    return {"mean of the four networks": "tab:red"}.get(model, "tab:blue" if model in STYLES else "tab:gray")


def _save(figure: Any, out: Path) -> None:
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    lines = out.read_text(encoding="utf-8").splitlines()
    out.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
