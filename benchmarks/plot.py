"""Latency over throughput, as SVG and PNG: ``python -m benchmarks.plot CURVES.json FOLDER``.

Each contestant is two lines, of p50 and p99, through its points at growing numbers of calls in flight.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.contest import Comparison

WINDOWS = (1, 4, 16, 64, 256, 500)
NAME = "latency-over-throughput"
Curves = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By contestant and calls in flight: p50, p99 (ms) and rate (calls/s)."""


def curves(comparisons: list[Comparison]) -> dict[str, dict[str, dict[str, float]]]:
    """The points of all contestants, the reference's from the rounds beside the first."""
    if not comparisons:
        return {}
    sides = {comparisons[0].against: comparisons[0].reference, **{one.name: one.own for one in comparisons}}
    return {
        name: {str(window): {"p50": one.p50, "p99": one.p99, "rate": one.rate} for window, one in samples.items()}
        for name, samples in sides.items()
    }


def draw(points: Curves, folder: Path) -> list[Path]:
    """Write both files; gives their paths. Needs the extra ``bench``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 7), layout="constrained")
    for number, (name, by_window) in enumerate(points.items()):
        samples: list[Mapping[str, Any]] = list(by_window.values())
        rates = [one["rate"] for one in samples]
        color = "black" if number == 0 else f"C{(number - 1) % 10}"
        axes.plot(rates, [one["p50"] for one in samples], "o-", color=color, label=name, markersize=4)
        axes.plot(rates, [one["p99"] for one in samples], ":", color=color, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="calls per second", ylabel="milliseconds of a call")
    axes.set_title(f"p50 (lines) and p99 (dots), {', '.join(next(iter(points.values())))} calls in flight")
    axes.grid(True, which="both", linewidth=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    paths = [folder / f"{NAME}.{kind}" for kind in ("svg", "png")]
    for path in paths:
        # The same figures give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=120, metadata=metadata)
    pyplot.close(figure)
    return paths


if __name__ == "__main__":
    for written in draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])):
        print(written)
