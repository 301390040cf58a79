"""The figure of `condensing_published.py`: what each set teaches, beside what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULT = Path(__file__).parent / "results" / "condensing_published.json"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "condensing.svg"
LABELS = {
    "class means and white noise": "class means",
    "gaussian": "+ covariance",
    "gaussian, a teacher's labels": "+ a teacher's labels",
    "kernel matching, learned labels": "matched, learned labels",
    "published form, quarter width": "published form",
    "random real stays": "random real stays",
}
EVALUATORS = {"authors": ("epoch chosen on real stays", "C1", "o"), "fixed_length": ("no real data", "C0", "s")}


def draw(rows: dict[str, Any], path: Path) -> None:
    """Write the SVG, the same bytes for the same result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "decoct", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(6.4, 2.8))
        for offset, (key, (label, colour, marker)) in zip((-0.12, 0.12), EVALUATORS.items(), strict=True):
            points = [rows[name][f"{key}_auroc"] for name in LABELS]
            middle = [point for point, _, _ in points]
            sides = [[p - low for p, low, _ in points], [high - p for p, _, high in points]]
            places = [place + offset for place in range(len(LABELS))]
            axes.errorbar(middle, places, xerr=sides, fmt=marker, color=colour, capsize=2, label=label)
        axes.set_yticks(range(len(LABELS)), list(LABELS.values()))
        axes.invert_yaxis()
        axes.set_xlabel("AUROC of in-hospital death from 80 samples, 95 %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(RESULT.read_text(encoding="utf-8"))["rows"], FIGURE)
