"""What an engine is: a set of methods, what they can do, and one way to solve with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bridges.choosing import Choice
from bridges.errors import EngineError
from bridges.methods import Method, NoiseMethod
from bridges.problem import Array, OdeProblem, OdeSolution, OnSample, Rhs


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do beyond `Engine.solve`.

    Attributes:
        embedded: it comes with the package and solves in this process; engine "auto" chooses among such engines, and
            error messages suggest them.
        recommends: `Engine.recommend` chooses a method by smoothness, stiffness and tolerance.
        laws: it has `Engine.solve_laws`.
        noise: it has `Engine.solve_noisy`, with `Engine.noise_methods`.
        tensors: it takes a tensor of torch as the state, and leaves it on its device.

    Example:
        >>> from bridges import get_engine
        >>> get_engine("scipy").capabilities
        Capabilities(embedded=True, recommends=False, laws=False, noise=False, tensors=False)
        >>> get_engine("torch").capabilities.tensors
        True
    """

    embedded: bool = False
    recommends: bool = False
    laws: bool = False
    noise: bool = False
    tensors: bool = False


@dataclass(frozen=True, eq=False)
class LawsSolution:
    """Laws of charges, solved at once.

    Attributes:
        charges: shape (steps+1, charges).
        rhs_evaluations: of the laws, all charges together.
        jvp_evaluations: products with their Jacobian.
    """

    charges: Array
    rhs_evaluations: int
    jvp_evaluations: int = 0


class Engine(ABC):
    """Methods that solve an `OdeProblem`. An engine is a subclass, and an entry in `bridges.engines.ENGINES`.

    A subclass gives `name`, `methods`, `version` and `solve`; everything else has a default. One whose methods advance
    step by step derives from `bridges.stepping.SteppedEngine` and gives `stepper` instead of `solve`.

    Attributes:
        name: as in the registry.
        methods: name → properties; the first that needs no step is the default.
        noise_methods: the same for `solve_noisy`.
        capabilities: what it can do beyond `solve`.
        remedy: what a user does if it does not start or gives wrong results.
        goes_on: does `solve` call `problem.on_step`, and go on from `problem.kept`?

    Example:
        >>> import numpy as np
        >>> from bridges import OdeProblem, get_engine
        >>> def decay(t, y, out):
        ...     out[:] = -y
        >>> found = []
        >>> problem = OdeProblem(decay, np.ones(1), np.array([0.0, 1.0]), rtol=1e-8)
        >>> solution = get_engine("scipy").solve(problem, "DOP853", lambda i, t, y: found.append(y.copy()))
        >>> solution.status, found[-1].round(4)
        ('success', array([0.3679]))
    """

    name: str
    methods: Mapping[str, Method]
    noise_methods: Mapping[str, NoiseMethod] = MappingProxyType({})
    capabilities = Capabilities()
    goes_on: bool = False

    @property
    @abstractmethod
    def version(self) -> str:
        """Library and version, for the record."""

    @abstractmethod
    def solve(self, problem: OdeProblem, method: str, on_sample: OnSample) -> OdeSolution:
        """Solve; a numerical failure is a status of the solution, an exception of a callable is raised unchanged.

        An exception raised by `rhs` or `on_sample`, KeyboardInterrupt included, comes out as the same object, with
        the solution so far as its attribute `ode_solution`.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: options that do not fit the method (see `bridges.options.require_fit`), or the engine cannot
                start.
        """

    @property
    def remedy(self) -> str:
        """What a user does if it does not start or gives wrong results."""
        return "reinstall its library"

    def lacks(self) -> str:
        """What is missing for the engine to start, as a clause for an error message; "" if nothing. Starts nothing."""
        return ""

    def require_ready(self) -> None:
        """Raises EngineError, with the remedy, if the engine lacks something to start; starts nothing."""
        lacks = self.lacks()
        if lacks:
            raise EngineError(f"engine {self.name!r} cannot start: {lacks}; {self.remedy}")

    def require_noise_ready(self) -> None:
        """As `require_ready`, for `solve_noisy`, which may need more."""
        self.require_ready()

    def default_method(self, step: float | None) -> str | None:
        """The method that is taken where none is named; None if one must be named.

        Without a step the first of `methods` that needs none, with a step the first that has a fixed one, else the
        first that takes one.
        """
        wanted = ("required", "optional") if step is not None else ("none", "optional")
        fitting = [name for name, method in self.methods.items() if method.step in wanted]
        if step is not None:
            fitting.sort(key=lambda name: wanted.index(self.methods[name].step))
        return fitting[0] if fitting else None

    def recommend(self, *, kinks: Sequence[str], stiffness: float, rtol: float | None) -> Choice | None:
        """The engine's own choice of method; None unless `capabilities.recommends`.

        Args:
            kinks: names of operations at which the field is not smooth; empty for a smooth field.
            stiffness: spectral radius of the Jacobian at the start × horizon, dimensionless.
            rtol: the tolerance asked for, or None.
        """
        return None

    def warm(self, method: str) -> None:  # noqa: B027 (most engines have nothing to do)
        """Compile now what the first solve by this method would compile.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: the engine cannot start.
        """

    @property
    def trial_methods(self) -> tuple[str, ...]:
        """The methods that `bridges.trials.try_engine` runs."""
        return tuple(self.methods)

    @property
    def laws_method(self) -> str | None:
        """The method that the laws of charges are solved by where none is named; None if one must be named."""
        return self.default_method(None)

    def solve_laws(
        self,
        *,
        order: int,
        m: Array,
        b: Array,
        kappa: Array,
        force: Array,
        y0: Array,
        times: Array,
        method: str,
        rtol: float,
        atol: float,
        step: float | None = None,
    ) -> LawsSolution:
        """The driven laws of many charges in one solve, with no callback.

        During step k: m[k] Q̈ + b[k] Q̇ + κQ = F[k] (order 2, y0 = Q followed by Q̇), or Q̇ = −κQ + F[k] (order 1).

        Args:
            order: 1 or 2.
            m, b, force: shape (steps, charges).
            kappa: shape (charges,).
            y0: shape (order · charges,), at the start.
            times: shape (steps+1,), the ends of the steps.
            method: one of `methods`.
            rtol, atol: tolerances of the local error.
            step: of a fixed-step method, whose steps end at each of `times` too.

        Raises:
            UnknownMethodError: the method is none of `methods`.
            EngineError: the engine has no such solve (`capabilities.laws`), cannot start, or gave up; or method and
                step do not fit together.
        """
        raise EngineError(f"engine {self.name!r} does not solve the laws of charges in one solve")

    def solve_noisy(
        self,
        drift: Rhs,
        *,
        factor: Array,
        y0: Array,
        time: float,
        step: float,
        seeds: Sequence[int],
        method: str,
        on_member: Callable[[int, Array], None],
    ) -> None:
        """Paths of dy = drift dt + factor dW from 0 to `time`, one for each seed.

        What `drift` or `on_member` raises, KeyboardInterrupt included, comes out as the same object.

        Args:
            drift: the vector field, in place.
            factor: shape (n,), diagonal noise, or (r, n), r Wiener processes; constant.
            y0: shape (n,), where every path starts.
            time: at which they end.
            step: of all steps; the last one is shorter where `time` is no multiple of it.
            seeds: whole numbers below 2^63; the same seed gives the same path.
            method: one of `noise_methods`.
            on_member: (index, state at `time`); copy what must outlive the call.

        Raises:
            UnknownMethodError: the method is none of `noise_methods`.
            EngineError: the engine has no such solve (`capabilities.noise`), the arguments do not fit (see
                `bridges.noise.require_noise_fit`), it cannot start, or a path became non-finite.
        """
        raise EngineError(f"engine {self.name!r} solves no stochastic differential equations")
