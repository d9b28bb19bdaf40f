"""Draws plain SVG pictures: shapes that are filled and stroked with one colour each, as OpenMoji's are."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from msam.errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path

Matrix = NDArray[np.float64]
"""Shape ``(3, 3)``; moves columns ``(x, y, 1)``."""
Style = Mapping[str, str]

_STYLE = {
    "fill": "#000",
    "stroke": "none",
    "stroke-width": "1",
    "stroke-linecap": "butt",
    "stroke-linejoin": "miter",
    "fill-opacity": "1",
    "stroke-opacity": "1",
    "opacity": "1",
}
"""What is inherited, and where that begins."""
_CAPS: dict[str, Literal["butt", "projecting", "round"]] = {"butt": "butt", "square": "projecting", "round": "round"}
_JOINS: dict[str, Literal["miter", "round", "bevel"]] = {"miter": "miter", "round": "round", "bevel": "bevel"}


def draw_svg(content: bytes, size: int) -> NDArray[np.uint8]:
    """Draw a picture on white.

    Gradients, style sheets, clipping, text, dashes and the even-odd rule are left out: pictures have to be plain.

    Args:
        content: The SVG file, square, its ``viewBox`` at the origin.
        size: Pixels of a side.

    Returns:
        Shape ``(size, size, 3)``.

    Raises:
        InvalidValueError: If it is no SVG file, has no such ``viewBox``, or a transform that is not known.
    """
    from matplotlib.backends.backend_agg import RendererAgg

    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InvalidValueError(f"a picture must be an SVG file, found one that cannot be read: {error}") from error
    box = _numbers(root.get("viewBox", ""))
    if len(box) != 4 or box[2] != box[3] or box[:2] != [0.0, 0.0] or box[2] <= 0:
        raise InvalidValueError(f"a picture's viewBox must be '0 0 SIZE SIZE', found {root.get('viewBox')!r}")
    renderer = RendererAgg(size, size, 72)  # type: ignore[no-untyped-call]
    scale = size / box[2]
    for path, style, place in _shapes(root, _STYLE, np.array([[scale, 0, 0], [0, -scale, size], [0, 0, 1]])):
        _draw(renderer, path, style, place)
    pixels = np.asarray(renderer.buffer_rgba()).astype(np.uint32)  # type: ignore[no-untyped-call]
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _shapes(node: ElementTree.Element, style: Style, place: Matrix) -> Iterator[tuple["Path", Style, Matrix]]:
    """Walk the tree in drawing order; styles are inherited, transforms accumulate, opacities multiply."""
    own = {**style, **{key: value for key, value in node.attrib.items() if key in _STYLE}}
    own["opacity"] = str(float(style["opacity"]) * float(node.get("opacity", 1)))
    here = place @ _transform(node.get("transform", ""))
    tag = node.tag.split("}")[-1]
    if outline := _outline(tag, node.attrib):
        yield _path(outline), own, here
    if tag in {"svg", "g"}:
        for child in node:
            yield from _shapes(child, own, here)


def _draw(renderer: "RendererAgg", path: "Path", style: Style, place: Matrix) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.path import Path
    from matplotlib.transforms import IdentityTransform

    placed = Path(np.asarray(path.vertices, dtype=np.float64) @ place[:2, :2].T + place[:2, 2], path.codes)
    brush = renderer.new_gc()
    if style["fill"] != "none":
        brush.set_linewidth(0)
        brush.set_alpha(float(style["fill-opacity"]) * float(style["opacity"]))
        renderer.draw_path(brush, placed, IdentityTransform(), to_rgb(style["fill"]))  # type: ignore[no-untyped-call]
    if style["stroke"] != "none":
        brush.set_linewidth(float(style["stroke-width"]) * np.sqrt(abs(np.linalg.det(place[:2, :2]))))
        brush.set_alpha(float(style["stroke-opacity"]) * float(style["opacity"]))
        brush.set_foreground(to_rgb(style["stroke"]))
        brush.set_capstyle(_CAPS[style["stroke-linecap"]])
        brush.set_joinstyle(_JOINS[style["stroke-linejoin"]])
        renderer.draw_path(brush, placed, IdentityTransform())  # type: ignore[no-untyped-call]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)]


def _transform(text: str) -> Matrix:
    whole = np.eye(3)
    for name, arguments in re.findall(r"(\w+)\s*\(([^)]*)\)", text):
        whole = whole @ _one_transform(name, _numbers(arguments))
    return whole


def _one_transform(name: str, values: list[float]) -> Matrix:
    match name:
        case "matrix":
            return np.vstack([np.reshape(values, (3, 2)).T, [0, 0, 1]])
        case "translate":
            return _one_transform("matrix", [1, 0, 0, 1, values[0], values[1] if len(values) > 1 else 0])
        case "scale":
            return np.diag([values[0], values[-1], 1])
        case "rotate":
            cos, sin = np.cos(np.deg2rad(values[0])), np.sin(np.deg2rad(values[0]))
            x, y = values[1:] or (0.0, 0.0)
            turn = _one_transform("matrix", [cos, sin, -sin, cos, 0, 0])
            return _one_transform("translate", [x, y]) @ turn @ _one_transform("translate", [-x, -y])
        case _:
            raise InvalidValueError(f"a transform must be matrix, translate, scale or rotate, found {name!r}")


def _outline(tag: str, given: Mapping[str, str]) -> str:
    """Write a shape as path data, or nothing if it is none."""
    value = {
        key: float(given[key]) for key in ("x", "y", "width", "height", "x1", "y1", "x2", "y2", "cx", "cy", "r") if key in given
    }
    match tag:
        case "path":
            return given.get("d", "")
        case "polygon" | "polyline":
            return f"M{given['points']}" + ("Z" if tag == "polygon" else "")
        case "line":
            return f"M{value.get('x1', 0)} {value.get('y1', 0)}L{value.get('x2', 0)} {value.get('y2', 0)}"
        case "circle" | "ellipse":
            rx, ry = float(given.get("rx", given.get("r", 0))), float(given.get("ry", given.get("r", 0)))
            x, y = value.get("cx", 0.0), value.get("cy", 0.0)
            return f"M{x - rx} {y}A{rx} {ry} 0 1 1 {x + rx} {y}A{rx} {ry} 0 1 1 {x - rx} {y}Z"
        case "rect":
            return _rectangle(value.get("x", 0), value.get("y", 0), value.get("width", 0), value.get("height", 0), given)
        case _:
            return ""


def _rectangle(x: float, y: float, width: float, height: float, given: Mapping[str, str]) -> str:
    rx = min(float(given.get("rx", given.get("ry", 0))), width / 2)
    ry = min(float(given.get("ry", given.get("rx", 0))), height / 2)
    across, down = width - 2 * rx, height - 2 * ry
    if not rx or not ry:
        return f"M{x} {y}h{width}v{height}h{-width}Z"
    turn = f"a{rx} {ry} 0 0 1 "
    top, right = f"M{x + rx} {y}h{across}{turn}{rx} {ry}", f"v{down}{turn}{-rx} {ry}"
    return f"{top}{right}h{-across}{turn}{-rx} {-ry}v{-down}{turn}{rx} {-ry}Z"


def _path(outline: str) -> "Path":
    from fontTools.pens.recordingPen import RecordingPen  # type: ignore[import-untyped]
    from fontTools.svgLib.path import parse_path  # type: ignore[import-untyped]
    from matplotlib.path import Path

    codes = {"moveTo": Path.MOVETO, "lineTo": Path.LINETO, "curveTo": Path.CURVE4, "qCurveTo": Path.CURVE3}
    pen = RecordingPen()
    parse_path(outline, pen)
    vertices: list[tuple[float, float]] = []
    kinds: list[np.uint8] = []
    for operation, points in pen.value:
        if operation == "closePath":
            vertices.append(vertices[-1])
            kinds.append(Path.CLOSEPOLY)
        elif operation in codes:
            vertices.extend(points)
            kinds.extend([codes[operation]] * len(points))
    return Path(np.array(vertices), kinds)
