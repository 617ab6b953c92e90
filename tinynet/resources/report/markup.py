"""Elements of HTML and SVG. What becomes text or an attribute is escaped where it is written out, and nowhere else, so
that nothing that a file says can become markup."""

from __future__ import annotations

from xml.etree import ElementTree

_SPACES = "\n\t\N{NO-BREAK SPACE}\N{FIGURE SPACE}"

Element = ElementTree.Element
Child = Element | str | None


def element(tag: str, /, *children: Child | list[Child], **attributes) -> Element:
    """An element.

    Args:
        children: elements and texts, and lists of them, in order; None is left out.
        attributes: ``class_`` for class, underscores for hyphens; None is left out. Floats are given two digits.
    """
    made = Element(tag)
    for key, value in attributes.items():
        if value is not None:
            key = key.rstrip("_") if key.endswith("_") else key.replace("_", "-")
            made.set(key, _clean(f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)))
    for child in children:
        add(made, child)
    return made


def add(parent: Element, child: Child | list[Child]) -> None:
    """Puts a child, or each of a list, at the end of ``parent``."""
    if isinstance(child, list):
        for each in child:
            add(parent, each)
    elif isinstance(child, str):
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + _clean(child)
        else:
            parent.text = (parent.text or "") + _clean(child)
    elif child is not None:
        parent.append(child)


def drawing(text: str) -> Element:
    """A whole SVG file as an element of a page."""
    found = ElementTree.fromstring(text)
    for each in found.iter():
        each.tag = each.tag.rpartition("}")[2]
    return found


def written(root: Element) -> str:
    """The element as HTML."""
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _clean(text: str) -> str:
    """Without the characters that HTML cannot hold."""
    return "".join(c if c.isprintable() or c in _SPACES else "\N{REPLACEMENT CHARACTER}" for c in text)
