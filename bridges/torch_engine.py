"""Engine "torch": explicit methods on tensors, wherever these lie."""

from __future__ import annotations

import importlib.metadata

from bridges.counted import CountedField
from bridges.engine import Capabilities
from bridges.methods import Method
from bridges.problem import OdeProblem, Rhs
from bridges.stepping import SteppedEngine, Stepper


class TorchEngine(SteppedEngine):
    """Explicit methods on tensors: SciPy's pairs, and methods with a fixed step; arrays are taken as tensors too."""

    name = "torch"
    methods = {  # noqa: RUF012 (read only)
        "DOP853": Method(kind="explicit", order=8, vectors=(1, 13)),
        "RK45": Method(kind="explicit", order=5, vectors=(1, 8)),
        "RK23": Method(kind="explicit", order=3, vectors=(1, 5)),
        "RKC2": Method(kind="stabilised", order=2, sharpness=True, vectors=(1, 6)),
        "Midpoint": Method(kind="explicit", order=2, step="required", jumps=True, vectors=(2, 2)),
        "RK8": Method(kind="explicit", order=8, step="required", jumps=True, vectors=(2, 11)),
    }
    capabilities = Capabilities(embedded=True, tensors=True)

    @property
    def version(self) -> str:
        return f"torch {importlib.metadata.version('torch')}"

    @property
    def remedy(self) -> str:
        return "pip install --force-reinstall torch"

    def lacks(self) -> str:
        """What is wrong with the import of torch, which is imported here and not before."""
        try:
            import bridges.torch_rk  # noqa: F401
        except ImportError as error:
            return f"torch cannot be imported ({error})"
        return ""

    def stepper_of(self, problem: OdeProblem, method: str, counted: CountedField) -> Stepper:
        """See `SteppedEngine.stepper_of`."""
        from bridges.torch_rk import stepper

        return stepper(problem, method, counted)

    def stepper(self, problem: OdeProblem, method: str, rhs: Rhs) -> Stepper:
        """Not asked for: see `stepper_of`."""
        raise NotImplementedError
