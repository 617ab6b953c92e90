"""The result as one Markdown table, with what it takes to read it: settings, differences, who is missing, machine."""

from __future__ import annotations

from . import products
from .peers import PEERS, Entry
from .timing import BASE, geometric_mean

UNITS = {"s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")), "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))}


def quantity(value: float, unit: str) -> str:
    """Three digits and a unit: 12.3 µs."""
    scale, name = next((each for each in UNITS[unit] if value >= each[0]), UNITS[unit][-1])
    scaled = value / scale
    return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f} {name}"


def cell_text(cell: dict | None, unit: str) -> str:
    """Median, half the distance of the quartiles, share of the possible, ratio to tinynet: 12.3 µs ±2 % (1.80x)."""
    if cell is None:
        return "-"
    if "median" not in cell:
        return cell["state"].split(":")[0]
    text = quantity(cell["median"], unit)
    if len(cell.get("samples", ())) > 1:
        text += f" ±{(cell['q3'] - cell['q1']) / 2 / cell['median']:.0%}"
    if "share" in cell:
        text += f", {cell['share']:.0%}"
    if "ratio" in cell and cell.get("name") != BASE:
        text += f" ({cell['ratio']['median']:.2f}x)"
    if 2 * cell.get("disturbed_rounds", 0) > len(cell.get("samples", ())):
        text += " !"
    return text


def best_ratio(row: dict) -> float | None:
    """The best peer over tinynet: above 1 where tinynet is the best."""
    ratios = [cell["ratio"]["median"] for name, cell in row["cells"].items() if name != BASE and "ratio" in cell]
    return min(ratios, default=None)


def means(rows: list[dict], section: str, cores: int) -> dict[str, tuple[float, int]]:
    """Geometric mean of the ratios, and of how many workloads, for each peer and for the "best"."""
    chosen = [row for row in rows if (row["section"], row["cores"]) == (section, cores)]
    ratios: dict[str, list[float]] = {}
    for row in chosen:
        for name, cell in row["cells"].items():
            if name != BASE and "ratio" in cell:
                ratios.setdefault(name, []).append(cell["ratio"]["median"])
        if (best := best_ratio(row)) is not None:
            ratios.setdefault("best", []).append(best)
    return {name: (geometric_mean(each), len(each)) for name, each in ratios.items()}


def table(rows: list[dict], peers: dict[str, dict], entries: tuple[Entry, ...] = PEERS) -> str:
    """One line for each workload, one column for each peer, missing ones too; geometric means after each section."""
    titles = [entry.title + (" (missing)" if "missing" in peers.get(entry.name, {}) else "") for entry in entries]
    lines = [["section", "workload", "cores", *titles, "best peer / tinynet"]]
    groups = list(dict.fromkeys((row["section"], row["cores"]) for row in rows))
    for section, cores in groups:
        for row in (row for row in rows if (row["section"], row["cores"]) == (section, cores)):
            texts = []
            for entry in entries:
                cell = row["cells"].get(entry.name)
                texts.append(cell_text(cell and cell | {"name": entry.name}, row["unit"]))
            best = best_ratio(row)
            lines.append([section, row["workload"], str(cores or "-"), *texts, f"**{best:.2f}x**" if best else "-"])
        mean = means(rows, section, cores)
        if mean.get("best", (0, 0))[1] > 1:
            texts = ["1.00x" if entry.name == BASE else "-" for entry in entries]
            for at, entry in enumerate(entries):
                if entry.name in mean:
                    texts[at] = f"{mean[entry.name][0]:.2f}x" + f" of {mean[entry.name][1]}"
            lines.append([section, "*geometric mean*", str(cores), *texts, f"**{mean['best'][0]:.2f}x**"])
    return _lines(lines)


def _lines(table: list[list[str]]) -> str:
    head, *body = table
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


def products_page(rows: list[dict]) -> list[str]:
    """The products behind the rows of the matrix product, one line for each on each number of cores; nothing where
    there are none."""
    rows = [row for row in rows if row.get("products")]
    if not rows:
        return []
    names = (products.OWN, products.BLAS, products.DISPATCHED)
    lines = [["product", "cores", *names, "which is", "of the peak", "dispatched / best", "two cores / one"]]
    for group in zip(*(row["products"] for row in rows)):
        for each in group:
            line = [each["name"], str(each["cores"])]
            if "state" in each:
                lines.append([*line, each["state"].split(":")[0], *"-" * (len(lines[0]) - 3)])
                continue
            ratio, mark = f"{each['ratio']:.2f}", " !" if each["disturbed"] else ""
            lines.append([
                *line, *(f"{products.speed(each, name):.1f}" for name in names), each["way"],
                f"{each['share'][products.DISPATCHED]:.0%}",
                f"**{ratio}**" if each["ratio"] > products.SLOWER and not mark else ratio + mark,
                f"{each['gain']:.2f}" if "gain" in each else "-",
            ])  # fmt: skip
    return [
        "## Matrix products", "",
        "C (m x n) = A (m x k) B (k x n) in float32, as m x k x n; T names an operand that is the transpose of what "
        "lies in memory. GFLOP/s, of the least of the medians of several attempts. Dispatched is what a program runs, "
        "and which of the two that is; the peak is that of multiply-adds on these cores, measured in the same rounds.",
        "", *(f"- {row['section']}, cores {row['cores']}: {products.summary(row['products'])}." for row in rows), "",
        _lines(lines), "",
    ]  # fmt: skip


def variants(rows: list[dict], name: str) -> str:
    """How often each variant was the better one."""
    used = [row["cells"][name]["variant"] for row in rows if row["cells"].get(name, {}).get("variant")]
    counts = ", ".join(f"{variant} {used.count(variant)} times" for variant in dict.fromkeys(used))
    return f" The better one: {counts}." if used else ""


def failures(rows: list[dict]) -> list[str]:
    """What was wrong, failed or took no part, in full."""
    found = {}
    for row in rows:
        for name, cell in row["cells"].items():
            if "state" in cell and cell["state"] != "full run only":
                where = f"{row['section']} {row['workload']}, cores {row['cores']}"
                found.setdefault(f"{name}: {cell['state']}", []).append(where)
        for each in row.get("products", ()):
            if "state" in each:
                found.setdefault(f"{BASE}: {each['state']}", []).append(f"{each['name']}, cores {each['cores']}")
    return [f"{what} ({'; '.join(where)})" for what, where in found.items()]


def machine_line(machine: dict) -> str:
    caches = ", ".join(
        f"{name} {size / 2**20:g} MiB" if size >= 2**20 else f"{name} {size / 2**10:g} KiB"
        for name, size in machine["caches"].items()
    )
    governor = machine["governor"] or "not readable"
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    load = "unknown" if machine["load_before"] is None else f"{machine['load_before']:.1f}"
    return f"{machine['processor']}, {cores}, {caches}; governor {governor}; {machine['system']}; load before {load}"


def markdown(result: dict) -> str:
    """The whole page."""
    peers = result["peers"]
    lines = [
        f"# Side by side: {result['name']}", "",
        f"`{result['command']}`, {result['date']}", "",
        machine_line(result["machine"]) + ".", "",
        "Medians; ± is half the distance of the quartiles; in brackets peer / tinynet, above 1 where tinynet needs "
        "less. A percentage after a comma is the share of the measured bandwidth (the faster of copying an array and "
        "of writing one over itself), or of the cores' peak for the matrix product. Losses and outputs are checked "
        "first: who is wrong is not timed. ! marks cells whose rounds were mostly disturbed by other processes.", "",
        table(result["rows"], peers), "",
    ]  # fmt: skip
    for entry in PEERS:
        about = peers.get(entry.name, {})
        if "missing" in about:
            lines.append(f"- **{entry.title} is missing**: this interpreter lacks {about['missing']}.")
        elif "left out" in about:
            lines.append(f"- **{entry.title} was left out** by --peers.")
        else:
            differs = f" Differs: {entry.differs}." if entry.differs else ""
            version = f" {about['version']}" if about.get("version") else ""
            lines.append(f"- {entry.title}{version}: {entry.settings}.{differs}{variants(result['rows'], entry.name)}")
    for row in result["rows"]:
        if "plans" in row and row["plans"] and "first" in row["workload"]:
            plans = ", ".join(f"{name} {quantity(size, 'bytes')}" for name, size in row["plans"].items())
            lines.append(f"- Planned for {row['workload'].rsplit(', ', 1)[0]}: {plans}.")
        if "notes" in row:
            notes = "; ".join(f"{name} {note}" for name, note in row["notes"].items())
            lines.append(f"- {row['workload']}, cores {row['cores']}: {notes}.")
        disturbed = [
            f"{name} {cell['disturbed_rounds']} of {len(cell['samples'])}"
            for name, cell in row["cells"].items()
            if "disturbed_rounds" in cell
        ]
        if disturbed:
            lines.append(
                f"- {row['section']} {row['workload']}, cores {row['cores']}: rounds disturbed by other "
                f"processes, after repeats: {', '.join(disturbed)}."
            )
        if "bytes_per_second" in row:
            speeds = ", ".join(f"{name} {speed / 1e9:.1f} GB/s" for name, speed in row["bytes_per_second"].items())
            lines.append(f"- {row['workload']}, cores {row['cores']}: bandwidth, read and written: {speeds}.")
    found = failures(result["rows"])
    if found:
        lines += ["", "Not timed:", "", *(f"- {each}" for each in found)]
    if page := products_page(result["rows"]):
        lines += ["", *page[:-1]]
    return "\n".join(lines) + "\n"
