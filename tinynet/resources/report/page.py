"""The page: what, when and where in a paragraph, the figures that count, and the sections."""

from __future__ import annotations

from tinynet.meters.units import show_bytes, show_joules, show_seconds

from . import sections
from .curves import View
from .energy import told
from .folder import RunFolder, is_number
from .markup import Child, Element, element, written
from .style import STYLE
from .tables import in_words

_SECTIONS = (
    ("learning", "Learning", sections.learning),
    ("pace", "Rate, batch and throughput", sections.pace),
    ("memory", "Memory", sections.memory),
    ("energy", "Energy", sections.energy),
    ("time", "Where the time goes", sections.time),
    ("decisions", "Decisions", sections.decisions),
    ("configuration", "Configuration and environment", sections.configuration),
)
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "gd": "gradient descent"}
_BETWEEN = ("differences", "Differences", sections.differences)


def render(run: RunFolder, other: RunFolder | None = None) -> str:
    """The report of a run, or of two side by side, as HTML. The same folders give the same text."""
    views = [View("", "a", run)] if other is None else [View("A", "a", run), View("B", "b", other)]
    chosen = [*_SECTIONS] if other is None else [_BETWEEN, *_SECTIONS]
    title = f"Run {run.name}" if other is None else f"Runs {run.name} and {other.name}"
    parts: list[Child] = [element("h1", title)]
    for view in views:
        parts.append(element("p", *sections.letter_of(view), described(view.run), class_="lead"))
    if other is None:
        parts.append(_figures(run))
    links = [element("li", element("a", words, href=f"#{name}")) for name, words, _ in chosen]
    parts.append(element("nav", element("ul", links), aria_label="Sections"))
    body = [
        element("section", element("h2", words, id=f"{name}-heading"), make(views), id=name,
                aria_labelledby=f"{name}-heading")
        for name, words, make in chosen
    ]  # fmt: skip
    names = " and ".join(view.run.name for view in views)
    footer = element("footer", f"Written by tinynet report from what is in {names}. No network, no scripts.")
    root = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            element("style", STYLE),
        ),
        element("body", element("main", element("header", parts), body, footer)),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{written(root)}\n"


def described(run: RunFolder) -> str:
    """What was trained, when and where, in sentences of what the folder tells."""
    config, plan = run.config or {}, run.plan or {}
    settings, chosen, environment = (config.get(name) or {} for name in ("settings", "chosen", "environment"))
    sizes = chosen.get("hidden")
    hidden = "" if not isinstance(sizes, list) else " without hidden layers" if not sizes else (
        f" with hidden layers of {', '.join(map(str, sizes))}" if len(sizes) > 1 else f" with {sizes[0]} hidden units"
    )  # fmt: skip
    count = (run.metrics or {}).get("parameters")
    parameters = f" ({in_words('', count)} parameters)" if count is not None else ""
    data = f" on {settings['source']}" if settings.get("source") else ""
    rows = run.history["epochs"] if run.history else []
    epochs, planned = len(rows), chosen.get("epochs")
    length = f" for {epochs:,} {'epoch' if epochs == 1 else 'epochs'}" if rows else ""
    if rows and isinstance(planned, int) and planned != epochs:
        length += f" of {planned:,}"
    batch = f" in batches of {in_words('', chosen['batch'])}" if chosen.get("batch") else ""
    named = settings.get("optimizer")
    optimizer = f" with {_OPTIMIZERS.get(str(named), named)}" if named else ""
    said = [f"A network{hidden}{parameters} was trained{data}{length}{batch}{optimizer}."]
    if run.history and run.history["stopped"]:
        said.append(f"It was stopped early: {run.history['stopped']}.")
    said.append(_when(run))
    where = [
        plan.get("processor"),
        _joined("{} {}", environment.get("system"), environment.get("machine")),
        _joined("{} processors", environment.get("processors")),
        *(_joined(f"{name} {{}}", environment.get(key)) for name, key in
          (("tinynet", "tinynet"), ("NumPy", "numpy"), ("Python", "python"))),
    ]  # fmt: skip
    where = [each for each in where if each]
    said.append(f"It ran on {', '.join(where)}." if where else "On what machine is not recorded.")
    return " ".join(said)


def _when(run: RunFolder) -> str:
    plan = run.plan or {}
    if not plan.get("started") or not plan.get("ended"):
        return "When is not recorded."
    started, ended = (plan[name].replace("T", " ").replace("Z", " UTC") for name in ("started", "ended"))
    if started == ended:
        return f"It was trained at {started}, in less than a second."
    same = started[:11] == ended[:11]
    if same:
        started, ended = started.removesuffix(" UTC"), ended[11:]
    return f"It began at {started} and ended at {ended}."


def _joined(pattern: str, *values) -> str | None:
    return None if any(value is None for value in values) else pattern.format(*values)


def _figures(run: RunFolder) -> Element | None:
    """The numbers that a reader looks for first, as far as the folder has them."""
    metrics, plan, found = run.metrics or {}, run.plan or {}, []
    for part in ("test", "valid", "training"):
        for name, value in (metrics.get(part) or {}).items() if isinstance(metrics.get(part), dict) else ():
            rounded = isinstance(value, float) and not name.endswith("accuracy")
            found.append((f"{part} {name}", f"{value:,.4g}" if rounded else in_words(name, value), None))
    rows = [row for row in (run.history or {"epochs": []})["epochs"] if is_number(row.get("seconds"))]
    if rows:
        found.append(("trained for", show_seconds(sum(row["seconds"] for row in rows)), f"{len(rows):,} epochs"))
    if is_number(metrics.get("samples_per_second")):
        found.append(("throughput", f"{metrics['samples_per_second']:,.0f}", "samples per second"))
    if plan:
        found.append(("arena of a step", show_bytes(plan["peak_bytes"]), "planned"))
    energy = told(run)
    if energy is not None and energy.joules is not None:
        found.append(("energy", show_joules(energy.joules), energy.provenance))
    if not found:
        return None
    return element("dl", [_figure(*each) for each in found], class_="figures")


def _figure(name: str, value: str, more: str | None) -> Element:
    return element("div", element("dt", name), element("dd", value, element("small", more) if more else None))
