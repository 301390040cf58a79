"""The figure of `encoder_noise.py`: bounds below attacks, and what noise costs, for the three curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

PRIORS = {
    "constant series": ("constant series, stated prior", "C0", "o"),
    "dithered real constant series": ("real constant series, dithered", "C1", "s"),
    "independent values": ("independent values, stated prior", "C2", "^"),
}
MODELS = {
    "logistic regression": ("AUROC, logistic regression", "C4", "s"),
    "gradient boosting": ("AUROC, boosting", "C5", "^"),
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the SVG, the same bytes for the same result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[Any, Any] = {
        "svg.hashsalt": "decoct",
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        figure, axes = plt.subplots(2, len(result["curves"]), figsize=(10.5, 6.2), sharex="col", sharey="row")
        for column, (name, rows) in zip(axes.T, result["curves"].items(), strict=True):
            labels = [_label(row["noise"]) for row in rows]
            _errors(column[0], rows)
            _costs(column[1], rows)
            column[0].set_title(name)
            column[1].set_xticks(range(len(rows)), labels, rotation=45, ha="right")
            column[1].set_xlabel("shots" if "shots" in name else "standard deviation of the noise")
        axes[0, 0].set_ylabel("root mean squared error\n(share of the range)")
        axes[1, 0].set_ylabel("R2 of inversion; AUROC of death")
        for row in axes:
            row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _label(noise: dict[str, Any]) -> str:
    if noise["kind"] == "none":
        return "none"
    return f"{noise['noise_sd']:g}" if noise["kind"] == "gaussian" else f"{noise['shots']:,}"


def _errors(axis: Any, rows: list[dict[str, Any]]) -> None:
    places = range(len(rows))
    for prior, (label, colour, marker) in PRIORS.items():
        each = [row["bounds"][prior] for row in rows]
        axis.plot(places, [row["bound_rmse"] for row in each], color=colour, lw=1.2, label=f"bound: {label}")
        axis.errorbar(
            places,
            [row["attack_rmse"] for row in each],
            yerr=[2 * row["attack_standard_error"] for row in each],
            color=colour,
            marker=marker,
            ms=4,
            ls="none",
            label=f"attack: {label}",
        )
    real = [row["inversion_of_real_series"]["rmse"] for row in rows]
    axis.plot(places, real, color="0.35", marker="x", ls=":", lw=0.8, ms=5, label="attack: real series, best of six")
    axis.set_ylim(0, 0.24)


def _costs(axis: Any, rows: list[dict[str, Any]]) -> None:
    places = range(len(rows))
    r2 = [row["inversion_of_real_series"]["r2"] for row in rows]
    axis.plot(places, r2, color="0.35", marker="x", ls=":", label="R2 of inversion, real series")
    for model, (label, colour, marker) in MODELS.items():
        each = [row["auroc_in_hospital_death"][model] for row in rows]
        axis.errorbar(
            places,
            [row["auroc"] for row in each],
            yerr=[row["sd"] for row in each],
            color=colour,
            marker=marker,
            ms=4,
            capsize=2,
            label=label,
        )
    axis.axhline(0.5, color="0.8", lw=0.8)
    axis.set_ylim(0, 1.02)
