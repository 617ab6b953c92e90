"""A layer's gradient written over the layer's input, strip by strip of the weight, while the weight is updated.

Going back through y = x W takes dx = dy W^T, of the weight as it was, and then spends x on the update of W. So dx and x
stand at the same time; but rows of W need the same columns of x and give the same columns of dx. Cut there, a strip of
W gives its columns of dx into a tensor of its own, is updated with its columns of x, and dx goes over those, which
nobody reads any more. The products are those that they were, cut; each strip reads dy again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tinynet.ops import lookup
from tinynet.ops.splitting import JOIN, Split

from ..graph import TEMPORARY, Graph, Instruction
from ..parts import Parts
from .tiling import cut_along_first, path_to_product

_PRODUCTS = ("matmul", "masked_matmul")  # that give dx, as it is or through a rectifier
_ROUND = 64  # rows of a strip are a multiple of it: columns of x begin where a vector may


class _Layer(NamedTuple):
    """What is cut, and how.

    Attributes:
        x, dx: registers; one is written over the other.
        rows: of the weight, which are columns of x.
        splits: place of each instruction that is cut -> its split; ascending. They move to the last of these places.
    """

    x: int
    dx: int
    rows: int
    splits: dict[int, Split]

    @property
    def first(self) -> int:
        return next(iter(self.splits))

    @property
    def last(self) -> int:
        return next(reversed(self.splits))


def overlay_gradients(graph: Graph, strips: int) -> None:
    """Cuts each layer that allows it into strips of its weight; dx then takes no memory but that of one strip.

    Args:
        strips: at most so many; of a weight with too few rows for that, fewer or none.
    """
    layers = {layer.last: layer for layer in _Finder(graph).layers() if _height(layer.rows, strips) < layer.rows}
    cut = {place for layer in layers.values() for place in layer.splits}
    new = []
    for place, each in enumerate(graph.instructions):
        if place not in cut:
            new.append(each)
        if place in layers:
            new += _in_strips(graph, layers[place], strips)
    graph.instructions = new
    graph.replace({layer.dx: layer.x for layer in layers.values()})
    graph.verify("overlay_gradients")


def _height(rows: int, strips: int) -> int:
    """Rows of a strip."""
    return -(-rows // (strips * _ROUND)) * _ROUND


def _in_strips(graph: Graph, layer: _Layer, strips: int) -> list[Instruction]:
    parts, height = Parts(graph, layer.rows), _height(layer.rows, strips)
    for start in range(0, layer.rows, height):
        parts.begin(start, min(start + height, layer.rows))
        for place, split in layer.splits.items():
            parts.write(graph.instructions[place], split)
        origin = graph.instructions[layer.first]
        target, made = parts.of(layer.x, 1, origin), parts.of(layer.dx, 1, origin)
        parts.new.append(origin.with_(op=lookup("assign"), inputs=(target, made), outputs=(target,), attributes={}))
    return parts.new


class _Finder:
    """Looks for layers that can be cut, in a graph that stays as it is."""

    def __init__(self, graph: Graph):
        self.graph, self.code = graph, graph.instructions
        self.makers, self.readers = graph.makers(), graph.readers()
        self.fixed = graph.written().union(map(graph.storage, graph.outputs))  # storages that stay as they are
        self.transposed: dict[int, int] = {}  # register -> the matrix of which it is the transpose
        self.products: dict[int, list[int]] = {}  # matrix -> places of products with its transpose on the right
        self.touched: dict[int, list[int]] = {}  # storage -> places of what reads or writes it
        for place, each in enumerate(self.code):
            if each.op is lookup("transpose") and graph.spec(each.inputs[0]).ndim == 2:
                self.transposed[each.outputs[0]] = each.inputs[0]
            elif each.op.name in _PRODUCTS and each.inputs[1] in self.transposed:
                self.products.setdefault(self.transposed[each.inputs[1]], []).append(place)
            for storage in {graph.storage(r) for r in (*each.inputs, *each.outputs)} if not each.view else ():
                self.touched.setdefault(storage, []).append(place)

    def layers(self) -> Iterator[_Layer]:
        """Those whose instructions do not lie among each other's."""
        end = -1
        for at, each in enumerate(self.code):
            layer = self._layer(at) if each.op.updates and not self.products.keys().isdisjoint(each.outputs) else None
            if layer is not None and layer.first > end:
                end = layer.last
                yield layer

    def _layer(self, at: int) -> _Layer | None:
        """The layer whose weight the instruction at this place updates."""
        path = path_to_product(self.graph, at, lambda product: 0, self.makers, self.readers)
        x = self.transposed.get(self.code[path[-1][0]].inputs[0]) if path is not None else None
        if x is None:
            return None
        rows, weights = self.graph.spec(x).shape[1], self.code[at].outputs
        splits = {place: cut_along_first(self.graph, self.code[place], i) for place, i in path}
        for dx, along in self._gradients(weights, rows):
            layer = _Layer(x, dx, rows, dict(sorted((along | splits).items())))
            if self._is_free(layer) and self._stays_apart(layer, weights) and self._can_move(layer):
                return layer
        return None

    def _gradients(self, weights, rows: int) -> Iterator[tuple[int, dict[int, Split]]]:
        """Candidates for dx, with the splits of what makes them: dy W^T, and an elementwise operation after it."""
        for place in (place for weight in weights for place in self.products.get(weight, ())):
            product, made = self._along_columns(place, 1, rows), self.code[place].outputs[0]
            reader = self.readers.get(made, [])[:1]
            if product is None:
                continue
            if reader and reader[0] < len(self.code) and self.readers[made] == reader:
                after = self.code[reader[0]]
                split = self._along_columns(reader[0], after.inputs.index(made), rows)
                if after.op.expression is not None and not after.op.updates and split is not None:
                    yield after.outputs[0], {place: product, reader[0]: split}
            yield made, {place: product}

    def _along_columns(self, place: int, position: int, rows: int) -> Split | None:
        """How an instruction is cut along columns of an input and of its result."""
        each, specs = self.code[place], self.graph.operands(self.code[place])
        if each.op.split is None or specs[position].ndim != 2 or self.graph.spec(each.outputs[0]).ndim != 2:
            return None
        axes = tuple(1 if i == position else None for i in range(len(specs)))
        found = each.op.split(rows, axes, *specs, **each.attributes)
        return found if found is not None and found.combine == JOIN and found.axis == 1 else None

    def _is_free(self, layer: _Layer) -> bool:
        """Whether x may hold dx: x is not needed after the layer, nor dx before its end."""
        x, dx = self.graph.registers[layer.x], self.graph.registers[layer.dx]
        if x.spec != dx.spec or any(
            each.kind != TEMPORARY or each.storage != each.index or each.index in self.fixed for each in (x, dx)
        ):
            return False
        others = [[i for i in self.touched[each.index] if i not in layer.splits] for each in (x, dx)]
        return max(others[0], default=-1) < layer.last < min(others[1], default=len(self.code))

    def _stays_apart(self, layer: _Layer, weights) -> bool:
        """Whether no strip reads what another one writes."""
        axes = {layer.x: 1, **dict.fromkeys(weights, 0)}  # register -> the axis of which strips take their part
        axes |= {register: 1 - axes[of] for register, of in self.transposed.items() if of in axes}
        written = {self.graph.storage(register) for register in axes}
        return all(
            axes.get(register) == axis
            for place, split in layer.splits.items() for register, axis in zip(self.code[place].inputs, split.cuts)
            if self.graph.storage(register) in written
        )  # fmt: skip

    def _can_move(self, layer: _Layer) -> bool:
        """Whether all that is cut may go to the last of its places."""
        between = [i for i in range(layer.first, layer.last) if i not in layer.splits and not self.code[i].view]
        return not any(
            self.graph.conflict(self.code[place], self.code[i]) for place in layer.splits for i in between if i > place
        )
