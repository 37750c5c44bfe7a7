"""Matplotlib figures as inline SVG with the page's colors, light or dark, and unique ids."""

import contextlib
import contextvars
import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

from dcp_tf import drawing
from dcp_tf.errors import first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Figures are drawn with these stand-ins; in the SVG they become the page's own custom properties.
PAGE = drawing.Palette("#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707")
INK, MUTED, LINE, BASELINE, PRUNED, THIRD, PAPER = dataclasses.astuple(PAGE)
_PROPERTIES = {color: "card" if name == "paper" else name for name, color in dataclasses.asdict(PAGE).items()}
_STYLE = {
    **drawing.style(PAGE),
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "svg.hashsalt": "dcp_tf",  # the same run gives the same page
}
_POINTS_PER_INCH = 72


_failures: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("undrawn figures", default=None)


def draw(name: str, alt: str, plot: Callable[["Figure"], None], *, width: int = 340, height: int = 260) -> Markup:
    """Draws a figure with `plot` and returns it as one `<svg>` element.

    Args:
        name: begins every id in the element; must differ between the figures of a page.
        alt: the text alternative.
        plot: draws on the empty figure.
        width: in CSS pixels at scale 1; the width of a phone, so that the text keeps its size there.
        height: in CSS pixels at scale 1.

    Returns:
        The element, safe in HTML. A sentence if the figure cannot be drawn and `undrawn` collects errors.
    """
    try:
        return _draw(name, alt, plot, width, height)
    except Exception as error:
        if (failures := _failures.get()) is None:
            raise
        failures.append(f"figure {name!r} could not be drawn: {type(error).__name__}: {first_line(error)}")
        return Markup("<p>This figure could not be drawn. {}</p>").format(alt)


@contextlib.contextmanager
def undrawn() -> Iterator[list[str]]:
    """Yields a list that collects a line for each figure that cannot be drawn inside the block."""
    token = _failures.set([])
    try:
        yield _failures.get()
    finally:
        _failures.reset(token)


def _draw(name: str, alt: str, plot: Callable[["Figure"], None], width: int, height: int) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure

    # Without pyplot there is no window, no global state and no backend to choose.
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        plot(figure)
        stream = io.StringIO()
        with contextlib.closing(stream):
            figure.savefig(stream, format="svg", metadata={"Date": None})
            text = stream.getvalue()
    return Markup(_inline(text, name, alt))


def _inline(text: str, name: str, alt: str) -> str:
    """Turns a stand-alone SVG file into an element of an HTML page."""
    root = ElementTree.fromstring(text)
    used = set(re.findall(r"#([\w-]+)", " ".join(_references(root))))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        element.attrib = {key: _attribute(key, value, name) for key, value in attributes.items()}
        if element.tag != "text":
            element.text = None
        element.tail = None
    root.attrib = {"role": "img", "aria-label": alt, "viewBox": root.attrib["viewBox"]}
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _references(root: ElementTree.Element) -> list[str]:
    """The attribute values that may point at an id: `href="#id"`, `clip-path="url(#id)"`."""
    return [value for element in root.iter() for value in element.attrib.values() if "#" in value]


def _attribute(key: str, value: str, name: str) -> str:
    """The value of an attribute with ids of this figure, the page's colors, and hundredths of a pixel."""
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "style":
        for color, custom_property in _PROPERTIES.items():
            value = value.replace(color, f"var(--{custom_property})")
    return " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
