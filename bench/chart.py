"""The ratios as one picture: a line for each workload, a dot for each peer, and tinynet at 1."""

from __future__ import annotations

from .peers import PEERS
from .timing import BASE

# Okabe and Ito's colours, which most people can tell apart, with a shape of its own for each peer.
STYLES = {
    "numpy": ("#0072B2", "o"), "torch": ("#D55E00", "s"), "torch.compile": ("#E69F00", "D"), "jax": ("#009E73", "^"),
    "tinygrad": ("#CC79A7", "v"), "sklearn": ("#56B4E9", "P"), "onnxruntime": ("#444444", "X"),
}  # fmt: skip


def draw(result: dict, path: str) -> None:
    """Writes an SVG. Needs matplotlib.

    Raises:
        ImportError: there is none.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator

    rows = [row for row in result["rows"] if any("ratio" in c for n, c in row["cells"].items() if n != BASE)]
    if not rows:
        return
    pyplot.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "tinynet"})
    figure, axis = pyplot.subplots(figsize=(10, 1.6 + 0.24 * (len(rows) + 2 * len(groups(rows)))), layout="constrained")
    y, ticks, labels = 0.0, [], []
    for section, cores in groups(rows):
        y += 1.0
        axis.text(0.0, y, f"  {section}, {cores} core{'s' if cores > 1 else ''}", va="center", weight="bold",
                  transform=axis.get_yaxis_transform())  # fmt: skip
        y += 1.0
        for row in (row for row in rows if (row["section"], row["cores"]) == (section, cores)):
            axis.axhline(y, color="#e4e4e4", linewidth=0.8, zorder=0)
            for name, cell in row["cells"].items():
                if name != BASE and "ratio" in cell:
                    ratio, (colour, marker) = cell["ratio"], STYLES[name]
                    axis.plot([ratio["q1"], ratio["q3"]], [y, y], color=colour, linewidth=1.4, alpha=0.6)
                    axis.plot(ratio["median"], y, marker, color=colour, markersize=5.5, markeredgewidth=0)
            ticks.append(y)
            labels.append(row["workload"])
            y += 1.0
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    axis.set_ylim(y, 0)
    axis.set_yticks(ticks, labels)
    axis.tick_params(axis="y", length=0)
    low, high = axis.get_xlim()
    steps = (1, 2, 5) if high > 4 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    axis.xaxis.set_major_locator(LogLocator(subs=steps, numticks=40))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axis.set_xlabel("peer / tinynet (log scale): right of the line tinynet needs less")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    shown = {name for row in rows for name, cell in row["cells"].items() if "ratio" in cell}
    handles = [
        Line2D([], [], color=STYLES[e.name][0], marker=STYLES[e.name][1], linestyle="", label=e.title)
        for e in PEERS
        if e.name in shown and e.name != BASE
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def groups(rows: list[dict]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row["section"], row["cores"]) for row in rows))
