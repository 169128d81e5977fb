"""What an operation does to a factor and to a shift of its arguments: one entry each, read by the rules of all kinds.

Three things are declared, of the result whatever the numbers are:

    degrees   multiplying the entries of some arguments by s > 0 multiplies the result by s**degree
    shifts    adding c to the entries of some arguments adds coefficient · c to the result
    along     the dimensions over which entries are put together: there all must have one factor, one shift

An argument (a tensor that depends on parameters) that `degrees` does not name may take no factor, one that `shifts`
does not name no shift. "self" is the first argument, however torch calls it. Further results of an operation are
indices, or what nobody may read. Contractions, normalisations, moves and lookups are not here: they have forms of their
own. Every entry is tried on torch's operation by tests/symmetries/test_declared_operations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isinf, prod
from typing import Any, TypeAlias

from torch.fx import Node

from nm_ode.symmetries.operations.reading import argument, dims_of, ndim_of, operation, value


@dataclass(frozen=True)
class Degree:
    """Arguments that must take the same factor s, entry by entry; the result then takes s**degree.

    Args:
        arguments: their names.
        degree: of the result in their factor.

    Example:
        >>> from nm_ode.symmetries.operations.declared import Degree
        >>> Degree(("self",), 2.0)
        Degree(arguments=('self',), degree=2.0)
    """

    arguments: tuple[str, ...]
    degree: float = 1.0


Degrees: TypeAlias = tuple[Degree, ...]
"""The result's factor is the product of what each gives."""


@dataclass(frozen=True)
class Shifts:
    """How a result shifts with its arguments.

    Attributes:
        coefficients: argument → coefficient; 0 for what a shift of all entries alike leaves as it is.
        together: all arguments named must shift alike, and the result then shifts as they do (a maximum of two).
        linear: the result is linear in the arguments named, taken together, but for a constant; what mixes their
            entries along dimensions that are not put together goes through.
    """

    coefficients: Mapping[str, float]
    together: bool = False
    linear: bool = False


@dataclass(frozen=True)
class Declared:
    """Of one operation; each a function of the node, since most depend on numbers among the arguments.

    Attributes:
        degrees: None: no factor passes.
        shifts: None: no shift passes.
        along: dimensions of the main argument (the first that is a tensor), not negative.
    """

    degrees: Callable[[Node], Degrees | None]
    shifts: Callable[[Node], Shifts | None]
    along: Callable[[Node], tuple[int, ...]]


def declared(node: Node) -> Declared | None:
    """What is declared of an operation, or None."""
    return DECLARED.get(operation(node))


DECLARED: dict[str, Declared] = {}
"""Operation → what it does."""


def declare(
    names: str,
    *,
    degrees: Degrees | Callable[[Node], Degrees | None] | None = None,
    shifts: Shifts | Callable[[Node], Shifts | None] | None = None,
    along: Callable[[Node], tuple[int, ...]] | None = None,
) -> None:
    """Enter operations that no table knows.

    Args:
        names: of operations of torch, separated by blanks.
        degrees: what becomes of a factor of its arguments, or a function of the node that says so; None forbids it.
        shifts: the same of a shift of them.
        along: node → the dimensions over which it puts entries together; none if None.
    """

    def of_node(given: Any) -> Callable[[Node], Any]:
        return given if callable(given) else lambda node: given

    entry = Declared(of_node(degrees), of_node(shifts), along or (lambda node: ()))
    DECLARED.update(dict.fromkeys(names.split(), entry))


def is_number(given: Any) -> bool:
    """A Python number, not a node."""
    return isinstance(given, float | int) and not isinstance(given, bool)


def _named(node: Node, names: Iterable[str]) -> tuple[str, ...]:
    """Of some arguments those that are tensors."""
    return tuple(name for name in names if isinstance(argument(node, name), Node))


# ---- along which dimensions


def _space(node: Node) -> tuple[int, ...]:
    """All but samples and channels, or but channels where there is one sample without a dimension of its own."""
    counts = {"1d": 1, "2d": 2, "3d": 3, "linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    space = next((n for suffix, n in counts.items() if suffix in operation(node)), 2)
    return tuple(range(ndim_of(node) - space, ndim_of(node)))


def _classes(node: Node) -> tuple[int, ...]:
    return (1,) if ndim_of(node) > 1 else (0,)


# ---- numbers among the arguments


def _sum_of(node: Node) -> Shifts | None:
    """a + alpha b, a − alpha b, alpha-weighted the other way round for rsub."""
    alpha = argument(node, "alpha", 1)
    if not is_number(alpha):
        return None
    first, second = {
        "add": (1.0, float(alpha)),
        "sub": (1.0, -float(alpha)),
        "rsub": (-float(alpha), 1.0),
    }[operation(node)]
    terms = {"self": first, "other": second}
    return Shifts({name: terms[name] for name in _named(node, terms)}, linear=True)


def _sum_degrees(node: Node) -> Degrees | None:
    """Both alike; with a number beside it only zero (see the rules for a normalisation's ε)."""
    names = _named(node, ("self", "other"))
    numbers = [argument(node, name) for name in ("self", "other") if name not in names]
    return (Degree(names),) if all(number == 0 for number in numbers) else None


def _by_a_number(node: Node) -> Shifts | None:
    a, b = argument(node, "self"), argument(node, "other")
    if argument(node, "rounding_mode") is not None:
        return None
    if operation(node) == "div":
        return Shifts({"self": 1.0 / b}, linear=True) if is_number(b) and b else None
    if is_number(b):
        return Shifts({"self": float(b)}, linear=True)
    return Shifts({"other": float(a)}, linear=True) if is_number(a) else None


def _quotient_degrees(node: Node) -> Degrees | None:
    if argument(node, "rounding_mode") is not None:
        return None
    return (Degree(("self",)), Degree(("other",), -1.0))


def _power(node: Node) -> Degrees | None:
    powers = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
    power = powers.get(operation(node), argument(node, "exponent"))
    return (Degree(("self",), float(power)),) if is_number(power) else None


def _count(node: Node) -> float:
    """Number of entries that a sum puts together."""
    shape = tuple(value(node.args[0]).shape)
    return float(prod(shape[dim] for dim in dims_of(node)))


def _no_noise(node: Node) -> Shifts | None:
    active = argument(node, "train", False) and argument(node, "p", 0.0) > 0
    return None if active else _SAME_LINEAR


def _average_pool(node: Node) -> Shifts | None:
    """A mean of each window, where no zeros are counted in."""
    padding = argument(node, "padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    counted = padded and argument(node, "count_include_pad", True)
    weighted = argument(node, "divisor_override") is not None or argument(node, "ceil_mode", False)
    return None if counted or weighted else Shifts({"self": 1.0}, linear=True)


def _lerp(node: Node) -> Shifts | None:
    weight = argument(node, "weight")
    return Shifts({"self": 1.0 - weight, "end": float(weight)}, linear=True) if is_number(weight) else None


def _clamp(node: Node) -> Degrees | None:
    """Zero alone is a bound that scales."""
    bounds = [argument(node, name) for name in ("min", "max")]
    return _ALIKE if all(bound is None or (is_number(bound) and bound == 0) for bound in bounds) else None


def _filled(node: Node) -> Degrees | None:
    filler = argument(node, "value")
    return _ALIKE if is_number(filler) and filler == 0 else None


def _comparison(node: Node) -> Degrees | None:
    """With zero, or of two that scale alike."""
    other = argument(node, "other")
    return (Degree(("self", "other"), 0.0),) if isinstance(other, Node) or other == 0 else None


def _either(node: Node) -> Degrees | None:
    """Both alike; of numbers zero and infinities scale with whatever is beside them."""
    numbers = [n for n in (argument(node, name) for name in _PAIR) if not isinstance(n, Node)]
    return _BOTH if all(is_number(n) and (n == 0 or isinf(n)) for n in numbers) else None


def _either_shifts(node: Node) -> Shifts | None:
    names = _named(node, _PAIR)
    return Shifts(dict.fromkeys(names, 1.0), together=True) if len(names) == 2 else None


def _is_pair(node: Node) -> bool:
    return isinstance(argument(node, "other"), Node)


def _largest(node: Node) -> Degrees:
    return _BOTH if _is_pair(node) else _ALIKE


def _largest_shifts(node: Node) -> Shifts:
    return Shifts(dict.fromkeys(_PAIR, 1.0), together=True) if _is_pair(node) else _SAME


def _of_largest(node: Node) -> tuple[int, ...]:
    return () if _is_pair(node) else dims_of(node)


def _norm(node: Node) -> Degrees | None:
    """Of order 0 it counts."""
    order = argument(node, "ord", argument(node, "p", 2))
    if order is None:
        return _ALIKE
    return (_NONE if order == 0 else _ALIKE) if is_number(order) else None


def _copies_outside(node: Node) -> bool:
    return operation(node) != "pad" or argument(node, "mode") != "constant"


def _padded(node: Node) -> tuple[int, ...]:
    return tuple(range(ndim_of(node) - len(argument(node, "pad")) // 2, ndim_of(node)))


_PAIR = ("self", "other")
_ALIKE: Degrees = (Degree(("self",)),)
_NONE: Degrees = (Degree(("self",), 0.0),)
_BOTH: Degrees = (Degree(_PAIR),)
_SAME = Shifts({"self": 1.0})
_SAME_LINEAR = Shifts({"self": 1.0}, linear=True)
_NOTHING = Shifts({"self": 0.0})

# ---- entry by entry
declare("relu leaky_relu abs rrelu", degrees=_ALIKE)
declare("neg", degrees=_ALIKE, shifts=Shifts({"self": -1.0}, linear=True))
declare("sign sgn", degrees=_NONE)
declare("dropout feature_dropout", degrees=_ALIKE, shifts=_no_noise)
declare("native_dropout rrelu_with_noise rrelu_with_noise_functional prelu tril triu", degrees=_ALIKE)
declare("clamp clamp_min clamp_max", degrees=_clamp)
declare("index_fill", degrees=_filled)
declare("gt lt ge le eq ne", degrees=_comparison)
declare("logical_not isnan isfinite angle heaviside", degrees=_NONE)
declare("real imag conj_physical _conj resolve_conj", degrees=_ALIKE)
declare("add sub rsub", degrees=_sum_degrees, shifts=_sum_of)
declare("mul", degrees=(Degree(("self",)), Degree(("other",))), shifts=_by_a_number)
declare("div", degrees=_quotient_degrees, shifts=_by_a_number)
declare("square sqrt rsqrt reciprocal pow", degrees=_power)
declare(
    "maximum minimum fmax fmin",
    degrees=(Degree(("self", "other")),),
    shifts=Shifts({"self": 1.0, "other": 1.0}, together=True),
)
declare("where", degrees=_either, shifts=_either_shifts)
declare("lerp", degrees=(Degree(("self", "end")),), shifts=_lerp)
declare("hypot", degrees=_BOTH)
declare("atan2", degrees=(Degree(("self", "other"), 0.0),))
# ---- along dimensions
declare("sum", degrees=_ALIKE, shifts=lambda node: Shifts({"self": _count(node)}, linear=True), along=dims_of)
declare("mean", degrees=_ALIKE, shifts=_SAME_LINEAR, along=dims_of)
declare(
    "amax amin sort topk kthvalue median nanmedian mode cummax cummin",
    degrees=_ALIKE,
    shifts=_SAME,
    along=dims_of,
)
declare("max min", degrees=_largest, shifts=_largest_shifts, along=_of_largest)
declare("argmax argmin argsort", degrees=_NONE, shifts=_NOTHING, along=dims_of)
declare("count_nonzero", degrees=_NONE, along=dims_of)
declare("cumsum nansum _fft_r2c _fft_c2c _fft_c2r", degrees=_ALIKE, along=dims_of)
declare("prod", degrees=lambda node: (Degree(("self",), _count(node)),), along=dims_of)
declare("trace _pdist_forward pdist", degrees=_ALIKE, along=lambda node: (0, 1))
declare("complex", degrees=(Degree(("real", "imag")),))
declare("view_as_complex", degrees=_ALIKE, along=lambda node: (ndim_of(node) - 1,))
declare("dist", degrees=_BOTH, along=lambda node: tuple(range(ndim_of(node))))
declare("cosine_similarity", degrees=(Degree(("x1",), 0.0), Degree(("x2",), 0.0)), along=dims_of)
declare("linalg_cross", degrees=(Degree(("self",)), Degree(("other",))), along=dims_of)
declare("logsumexp logcumsumexp", shifts=_SAME, along=dims_of)
declare("linalg_vector_norm norm", degrees=_norm, along=dims_of)
declare("std", degrees=_ALIKE, shifts=_NOTHING, along=dims_of)
declare("var", degrees=(Degree(("self",), 2.0),), shifts=_NOTHING, along=dims_of)
declare("softmax log_softmax _softmax _log_softmax _safe_softmax", shifts=_NOTHING, along=dims_of)
declare(
    "cross_entropy_loss multi_margin_loss multilabel_margin_loss multilabel_margin_loss_forward",
    shifts=_NOTHING,
    along=_classes,
)
# ---- images and sequences
declare(
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices",
    degrees=_ALIKE,
    shifts=_SAME,
    along=_space,
)
declare("avg_pool1d avg_pool2d avg_pool3d", degrees=_ALIKE, shifts=_average_pool, along=_space)
declare(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d",
    degrees=_ALIKE,
    shifts=_SAME_LINEAR,
    along=_space,
)
declare(
    "pad _pad_circular",
    degrees=lambda node: _ALIKE if _copies_outside(node) else None,
    shifts=lambda node: _SAME_LINEAR if _copies_outside(node) else None,
    along=_padded,
)
