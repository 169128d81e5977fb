"""How generators act on theta, one form a file, each with the sums that measure its charges."""

from nm_ode.symmetries.forms.base import Form, Placed
from nm_ode.symmetries.forms.blocks import Blocks
from nm_ode.symmetries.forms.diagonal import Diagonal
from nm_ode.symmetries.forms.shift import Shift

__all__ = ["Blocks", "Diagonal", "Form", "Placed", "Shift"]
