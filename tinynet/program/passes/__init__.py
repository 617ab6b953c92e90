"""Passes: each takes a graph and makes it smaller, faster or leaner, and leaves what it computes.

dead           instructions whose results nobody needs
folding        constants computed, and views and factors that change nothing
common         what is computed twice, computed once
activation     linear and the activation after it
mask           which side of zero x is on, told from relu(x), so that x can die
hoisting       updates as early as they may be, so that gradients die early
cross_entropy  the loss and its gradient from one softmax
fusion         chains of elementwise operations, with a reduction at the end
masking        products and the mask of a rectifier after them
overlaying     a layer's gradient, written over the layer's input strip by strip of its weight
rounding       operands of products in bf16, made once
forwarding     what is written over a tensor, computed there and not copied
tiling         products of matrices that an update uses up tile by tile
inplace        results written over inputs that nobody needs any more

Each has one function of a graph, which it changes; ``compile`` says in which order they run. Those that keep every bit
of a result run always; those that may change rounding only with ``fuse=True``.
"""

from .activation import apply_activations
from .common import share_common
from .cross_entropy import join_cross_entropy
from .dead import remove_dead
from .folding import fold
from .forwarding import forward_results
from .fusion import fuse_elementwise
from .hoisting import hoist_updates
from .inplace import write_in_place
from .mask import mask_from_output
from .masking import mask_products
from .overlaying import overlay_gradients
from .rounding import round_operands
from .tiling import tile_updates

__all__ = [
    "apply_activations",
    "fold",
    "forward_results",
    "fuse_elementwise",
    "hoist_updates",
    "join_cross_entropy",
    "mask_from_output",
    "mask_products",
    "overlay_gradients",
    "remove_dead",
    "round_operands",
    "share_common",
    "tile_updates",
    "write_in_place",
]
