"""What a program is compared with, and how near it has to be, before anybody relies on it.

A program without fusion has to leave every bit of the eager run. Fusion changes the order of sums; their rounding
errors stay far below what is allowed here, and an error in a pass or a kernel does not. When it is compared is decided
in ``variant``.
"""

from __future__ import annotations

from tinynet.errors import CaptureError

from .calls import Call
from .execute import Program
from .trace import Trace

# How far a result may be from that of the eager step, of its own largest element, and of that of all results.
TOLERANCE = {"float32": (1e-3, 1e-4), "float64": (1e-9, 1e-10)}
# Numbers so small are all the same: compiled programs take the smallest for zero.
NOTHING = {"float32": 1e-35, "float64": 1e-300}
_PIECE = 1 << 18  # elements that are compared at a time
_EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


def run_from_before(program: Program, trace: Trace, call: Call):
    """A run of a program from what there was before the eager one: outputs, and the tensors and arguments after.

    What the eager run wrote to was copied before it; the program writes to copies of those.
    """
    before = {register: program.backend.copy(array) for register, array in trace.before.items()}
    state = trace.arrays | before
    state = {register: state[register] for register in trace.externals}
    inputs = [before.get(r, leaf.array) for r, leaf in zip(program.graph.inputs, call.leaves)]
    return program.run(inputs, state), state, inputs


def difference(what: str) -> CaptureError:
    return CaptureError(
        "capture", expected=f"{what} of the program to equal that of the eager run", got="other numbers",
        mend="the step does something that operations do not show; call it without capture",
    )  # fmt: skip


def same_bits(backend, a, b) -> bool:
    a, b = backend.to_host(a), backend.to_host(b)
    bits = f"u{a.dtype.itemsize}"
    return bool((a.view(bits) == b.view(bits)).all())


def largest(backend, array) -> float:
    """The largest finite magnitude, 0 where there is none."""
    host = backend.to_host(array)
    if host.dtype.kind != "f" or not host.size:
        return 0.0
    magnitude = abs(host)
    return float(magnitude.max(initial=0.0, where=magnitude < float("inf")))


def close(backend, ours, theirs, everything: float) -> bool:
    """Whether floating results agree to ``TOLERANCE`` where both are finite; others hang on the last bit, as argmax."""
    a, b = backend.to_host(ours), backend.to_host(theirs)
    if b.dtype.kind != "f":
        return True
    relative, absolute = TOLERANCE[b.dtype.name]
    finite = (abs(a) < float("inf")) & (abs(b) < float("inf"))
    near = abs(a - b) <= relative * largest(backend, theirs) + absolute * everything + NOTHING[b.dtype.name]
    return bool((near | ~finite).all())


def changed_alike(backend, before, ours, theirs, everything: float) -> bool:
    """Whether a program has changed what a step writes to as the eager run did.

    Each element by about as much; or at least all of them together, because optimizers that divide a gradient by its
    size make large steps of gradients that are nothing but rounding errors, which differ. Changes that are small beside
    ``everything``, the largest number of all that is compared, may be such errors themselves.
    """
    before, ours, theirs = (backend.to_host(each) for each in (before, ours, theirs))
    if theirs.dtype.kind != "f":
        return bool((ours == theirs).all())
    # in pieces: three of a large weight in float64, and what is computed of them, would be the peak of a whole step
    pieces = [[each.reshape(-1)[at : at + _PIECE] for each in (before, ours, theirs)]
              for at in range(0, theirs.size, _PIECE)]  # fmt: skip
    magnitude = change = difference = mine = other = 0.0
    for piece in pieces:
        finite = abs(piece[2]) < float("inf")
        a, b, c = (each[finite].astype("float64") for each in piece)
        if not (abs(b) < float("inf")).all():
            return False
        magnitude, change, difference = (
            max(known, float(abs(new).max(initial=0.0)))
            for known, new in ((magnitude, c), (change, c - a), (difference, b - c))
        )
        mine, other = mine + float(((b - a) ** 2).sum()), other + float(((c - a) ** 2).sum())
    rounding = _EPSILON[theirs.dtype.name] * (100 * magnitude + 10 * everything) + NOTHING[theirs.dtype.name]
    if difference <= 0.01 * change + rounding or change <= 10 * rounding:
        return True
    return 0.8 * other**0.5 <= mine**0.5 <= 1.25 * other**0.5
