"""The central flow (docs/theory.md §4.10, §4.12)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Interval
from torch import Tensor

from nm_ode.arguments import as_count, said
from nm_ode.flows.base import (
    Cost,
    Flow,
    FlowError,
    JacobianProduct,
    Oscillation,
    UpdateMap,
    other_options,
    require_plain,
)
from nm_ode.flows.central.complementarity import solve_complementarity
from nm_ode.flows.central.delayed import SIZE as DELAY
from nm_ode.flows.central.delayed import Delay, seed_of, watched
from nm_ode.flows.central.edge import Array, Edge, distance_to_edge, nowhere
from nm_ode.flows.central.metrics import Diagonal, Drift, Metric, metric_of
from nm_ode.flows.central.required import CentralFlowError, require_smooth, require_space
from nm_ode.flows.central.search import Search
from nm_ode.flows.central.thirds import HowThird
from nm_ode.loss import Problem
from nm_ode.loss.critical import CriticalSpace
from nm_ode.loss.operators import Hessian, Shifted, SymmetricOperator
from nm_ode.required import as_flag, as_positive

_SAID = ("relaxation", "followed", "second_order", "third", "most")  # of the options, in its name
_KKT = 1e-8
_ROUNDS, _SETTLED = 8, 1e-11  # of X, where the metric moves with it
_NEAR = 1e-2  # of theta's size: so near third derivatives are alike
_OF_SAMPLES = 1e-5  # of residuals, for what is recorded: X is good to 1e-6 then


@dataclass(frozen=True)
class CentralFlow(Flow):
    """θ̇ = −(1 + (η/2)H)F with F = g + ½ Σ_ij X_ij T_ij: what plain descent follows on average at the edge.

    u_i are the eigenvectors of H whose ηλ_i is near 2, T_ij = ∇(u_iᵀH u_j), and Σ = Σ_ij X_ij u_i u_jᵀ is the
    covariance of descent's oscillation about its average: the smallest one with which no eigenvalue stays above 2/η.
    It is the X ⪰ 0 that minimises ½⟨X, BX⟩ + ⟨A, X⟩, A = ((2/η) − Λ)/τ + ⟨T, g⟩, B = ½⟨T, T⟩, so that the distance
    from the edge goes as exp(−t/τ). Below the edge X is 0 and it is the modified flow of order 2 in Hessian form.
    With L + (λ/2)‖θ‖² for L under weight decay (Cohen, Damian, Talwalkar, Kolter, Lee 2025; docs/theory.md §4.10).

    Of RMSProp and Adam it is that of the metric D = √ν + ε, ν in the state: θ̇ = −D⁻¹F, and the edge is of
    D^{−1/2}HD^{−1/2}; heavy ball goes 1/(1−β) times as fast, with the edge at 2(1+β)/η, to leading order
    (docs/theory.md §4.12, §4.13).

    What a right-hand side takes varies; a solution's record has what was really spent.

    Args:
        problem: the loss.
        optimizer: SGD without Nesterov's momentum, RMSprop without momentum and not centred, ScalarRMSprop, or Adam
            without momentum.
        relaxation: τ in units of η.
        followed: ηλ from which on a direction may oscillate, below 2. What it has of the oscillation is zero there.
        second_order: with the factor 1 + (η/2)H; without, the flow is gradient flow below the edge. Of heavy ball none
            is known that holds to the edge, and there is none.
        third: how T is found: "exact", by "differences" of gradients, or by whichever of both is cheaper and equal.
        most: directions that there may be at the edge.
        delayed: no more oscillation than there is: it grows from the start's own (30 steps of descent are taken to see
            it) or from rounding, by |1 − ηλ| a step, until it is the central flow's. Of plain descent.

    Raises:
        FlowError: an optimiser other than these, a loss with kinks, or numbers out of range. Later
            `CentralFlowError`: more directions at the edge than `most`, eigenvectors that are not found, or an
            oscillation that is not.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> one = torch.ones(4, 1)  # the loss is (uv − 1)², its largest eigenvalue at a minimum 2(u² + v²)
        >>> problem = nm_ode.Problem(mlp([1, 1, 1], "identity", bias=False), mse_loss, (one, one))
        >>> flow = nm_ode.CentralFlow(problem, nm_ode.SGD(lr=0.4))
        >>> solution = nm_ode.solve(flow, t=[0.0, 6.0], theta0=[1.6, 0.6], rtol=1e-4, check=False)
        >>> solution.critical_eigenvalue[:, 0].values.round(2), float(solution.critical_edge)
        (array([5.79, 5.  ]), 5.0)
    """

    problem: Problem
    optimizer: UpdateMap
    relaxation: Annotated[float, Gt(0)] = 1.0
    followed: Annotated[float, Interval(gt=1, lt=2)] = 1.95
    second_order: bool = True
    third: HowThird = "auto"
    most: Annotated[int, Gt(0)] = 8
    delayed: bool = False
    _metric: Metric = field(init=False, repr=False, compare=False)
    _search: Search = field(init=False, repr=False, compare=False)
    _samples: Search = field(init=False, repr=False, compare=False)
    expected_order: ClassVar = 1
    depends_on_lr: ClassVar = True
    follows_average: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {
            "relaxation": as_positive(self.relaxation, "relaxation"),
            "followed": as_positive(self.followed, "followed"),
            "second_order": as_flag(self.second_order, "second_order"),
            "most": as_count(self.most, "most", error=FlowError),
            "delayed": as_flag(self.delayed, "delayed"),
            "_metric": metric_of(self.optimizer),
            "_search": Search(self.problem, self.third, self.noise),
            "_samples": Search(self.problem, self.third, max(self.noise, _OF_SAMPLES)),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if not 1 < self.followed < 2:
            raise FlowError(f"followed must be between 1 and 2; {said(self.followed)} was given")
        if self.third not in ("auto", "exact", "differences"):
            raise FlowError(f"third must be 'auto', 'exact' or 'differences'; {said(self.third)} was given")
        if self.delayed:
            require_plain(self.optimizer, self.title)
        require_smooth(self)

    @property
    def name(self) -> str:
        options = [f"_{name}_{value}" for name, value in other_options(self, _SAID).items()]
        return ("central_delayed" if self.delayed else "central") + "".join(options)

    @property
    def title(self) -> str:
        options = [f", {name} = {value}" for name, value in other_options(self, _SAID).items()]
        return ("central flow, delayed" if self.delayed else "central flow") + "".join(options)

    @property
    def noise(self) -> float:
        """Of eigenvectors' residuals, over the largest eigenvalue; the field's is smaller."""
        return float(torch.finfo(self.problem.dtype).eps ** 0.5)

    @property
    def cheap_jvp(self) -> bool:
        return self._metric.is_plain

    @property
    def cost(self) -> Cost:
        """Below the edge, without what finding eigenvectors takes: the least."""
        return Cost(gradients=1, hvps=1, hvps_per_jvp=0)

    def rhs(self, t: float, state: Tensor) -> Tensor:
        edge = self.at(state)
        assert edge.field is not None
        if not self.delayed:
            return edge.field
        lr = self.optimizer.lr
        rates = Delay.of(state).rates(lr * edge.largest, edge.needed, lr)
        return torch.cat([edge.field, torch.tensor(rates).to(edge.field)])

    @property
    def jvp(self) -> JacobianProduct | None:
        """All of the Jacobian that is stiff: third derivatives held fixed, from the edge that was seen last.

        Of plain descent alone.
        """
        return self._jvp if self._metric.is_plain else None

    def _jvp(self, t: float, state: Tensor, v: Tensor) -> Tensor:
        found = self._product(state, self.theta_in(v))
        if self.delayed:  # how the oscillation's growth goes with theta is slow, and left out
            lr, edge = self.optimizer.lr, self._near(state)
            own = torch.zeros_like(v[-DELAY:])
            own[0] = Delay.of(state).stiffness(lr * edge.largest, edge.needed, lr) * v[-DELAY]
            found = torch.cat([found, own])
        return found

    def _near(self, state: Tensor) -> Edge:
        """The edge that was seen last, if that was near."""
        edge, theta = self._search.last, self.theta_in(state)
        if edge is None or float((theta - edge.theta).norm()) > _NEAR * float(theta.norm()):
            return self.at(state)
        return edge

    def _product(self, state: Tensor, v: Tensor) -> Tensor:
        lr, edge = self.optimizer.lr, self._near(state)
        product = self._difference(edge, v)
        bend = edge.change(v, product, self.relaxation * lr)
        force = product if bend is None else product + bend
        if self.second_order:
            force = force.add(self._difference(edge, force), alpha=lr / 2)
        return force.neg()

    def _difference(self, edge: Edge, v: Tensor) -> Tensor:
        """(H + λ)v by a difference of gradients: good enough for an implicit method, at a third of a product."""
        size = float(v.norm())
        if not size > 0:
            return torch.zeros_like(v)
        step = torch.finfo(v.dtype).eps ** 0.5 * max(1.0, float(edge.theta.norm())) / size
        found = self.problem.grad(edge.theta.add(v, alpha=step)).sub_(edge.gradient).div_(step)
        return found.add_(v, alpha=self._metric.decay)

    @property
    def oscillation(self) -> Oscillation:
        return Oscillation(self._recorded, self.most, self._edge)

    @property
    def _edge(self) -> float:
        return self._metric.edge

    def state_from(self, theta: Tensor, memory: Tensor | None = None) -> Tensor:
        self._search.begin()
        self._samples.begin()
        if self.delayed:
            plain = require_plain(self.optimizer, self.title)
            place, off = watched(self.problem, plain, theta)
            along = self._search.sharpest(place)
            return Delay.begun(seed_of(self.problem, plain, place, along, off)).after(theta)
        return self._metric.start(theta, memory, self._regular(theta, self.problem.grad(theta)))

    def scale(self, state: Tensor) -> Tensor | None:
        sizes = None if self.delayed else self._metric.scale(state[self.problem.layout.size :])
        return None if sizes is None else torch.cat([torch.ones_like(self.theta_in(state)), sizes])

    def at(self, state: Tensor) -> Edge:
        """The edge of stability at a state, and the field there.

        Raises:
            CentralFlowError: see above.
        """
        return self._at(self._search, state)

    def _recorded(self, state: Tensor) -> Edge:
        """The edge of stability at a sample; its field may be left out."""
        seen = self._search.last
        if seen is not None and torch.equal(seen.state, state.to(seen.state)):
            return seen
        return self._at(self._samples, state, moves=False)

    def _at(self, search: Search, state: Tensor, moves: bool = True) -> Edge:
        """The edge at a state.

        Args:
            moves: is the field wanted too, which takes Hessian products of its own?
        """
        state = state.to(self.problem.theta0)
        metric, size = self._metric, self.problem.layout.size
        theta, memory = state[:size], state[size : -DELAY if self.delayed else None]
        diagonal = metric.diagonal(memory)
        loss, own = self.problem.loss_and_grad(theta)
        gradient = self._regular(theta, own)
        downhill = diagonal.over(gradient)
        product = None
        if moves or not search.begun:
            product = self._regular(downhill, self.problem.hvp(theta, downhill))
        if not bool((gradient if product is None else product).isfinite().all()):
            return nowhere(state, size + len(memory), loss, own)
        space = self._space(search, theta, diagonal, downhill, product)
        directions = diagonal.over_root(space.vectors)
        vectors, turn = _orthonormal(directions) if diagonal.values is not None else (directions, None)
        drift = metric.drift(memory, diagonal, directions)
        thirds = search.thirds.along(theta, own, vectors)
        if turn is not None:
            thirds = torch.einsum("ia,abp,jb->ijp", turn, thirds, turn)
        x, kkt, bend, response = self._oscillation(
            space.values.numpy(), thirds.flatten(0, 1), gradient, diagonal, drift
        )
        needed = float(np.trace(x))
        if self.delayed:
            share = Delay.of(state).share(needed)
            x, bend = share * x, share * bend
        force = gradient + bend
        field = None
        if moves and product is not None:
            if x.any() and self._second:
                bent_downhill = diagonal.over(bend)
                product = product + self._regular(bent_downhill, self.problem.hvp(theta, bent_downhill))
            field = self._field(diagonal, drift, x, force, product)
        values = space.values.to(directions)
        bent = values[:, None] * diagonal.times(directions) - metric.decay * directions
        if turn is not None:
            bent, x = torch.linalg.solve(turn, bent), _small(turn).T @ x @ _small(turn)
        search.last = edge = Edge(
            state=state.clone(),
            theta=theta.clone(),
            values=space.values.numpy(),
            vectors=vectors,
            bent=bent,
            largest=space.largest,
            oscillation=x,
            kkt=kkt,
            loss=loss,
            gradient=own,
            average=own + bend,
            field=field,
            thirds=thirds,
            response=response,
            needed=needed,
        )
        return edge

    @property
    def _second(self) -> bool:
        """Is the term of order a in it?"""
        return self.second_order and self._metric.second_order

    def _field(
        self, diagonal: Diagonal, drift: Drift | None, x: Array, force: Tensor, product: Tensor
    ) -> Tensor:
        """d state / dt, without what is of a delay.

        Args:
            product: HD⁻¹F.
        """
        metric = self._metric
        move = diagonal.over(force).mul(-metric.speed)
        rates: list[Tensor] = []
        if drift is not None:
            flat = torch.from_numpy(x.reshape(-1)).to(force)
            rate, of_diagonal = drift.rates(flat, force, product if self._second else None)
            rates.append(rate)
            product = product + diagonal.over(of_diagonal * force)
        if self._second:
            move.sub_(diagonal.over(product), alpha=metric.step / 2)
        return torch.cat([move, *rates])

    def _oscillation(
        self, values: Array, thirds: Tensor, gradient: Tensor, diagonal: Diagonal, drift: Drift | None
    ) -> tuple[Array, float, Tensor, Array]:
        """X, its residual, what it adds to the gradient, ½ Σ_ij X_ij T_ij, and B.

        Args:
            values: the eigenvalues, shape (k,).
            thirds: T, shape (k², P).
        """
        metric, k = self._metric, len(values)
        x, kkt, bend = np.zeros((k, k)), 0.0, torch.zeros_like(gradient)
        if not k:
            return x, kkt, bend, np.zeros((0,) * 4)
        gap = distance_to_edge(values, metric.edge, self._width) / (self.relaxation * metric.step)
        exact = thirds.double()  # sums of float32 are not symmetric enough
        a = exact @ diagonal.over(gradient).double() * metric.speed
        b = exact @ diagonal.over(thirds).double().T * (metric.speed / 2)
        if drift is not None:
            b = b + drift.of_oscillation()
        response = _small(b).reshape(k, k, k, k)
        for _ in range(1 if drift is None else _ROUNDS):
            # The averaged gradient's square has X in it, which is a small part: it converges by a factor of 1e-4.
            drifting = a if drift is None else a + drift.without(gradient + bend)
            found = solve_complementarity(np.diag(gap) + _small(drifting).reshape(k, k), response)
            settled = np.abs(found.x - x).max() <= _SETTLED * np.abs(found.x).max()
            x, kkt = found.x, found.kkt
            bend = torch.from_numpy(x.reshape(-1) / 2).to(thirds) @ thirds
            if settled:
                break
        if not kkt <= _KKT:
            raise CentralFlowError(
                f"{self.title}: the oscillation of {k} directions at the edge of stability was found to {kkt:.0e} "
                f"alone, not to {_KKT:g}: start nearer to the edge, or take a smaller lr"
            )
        return x, kkt, bend, response

    @property
    def _width(self) -> float:
        """How far below the edge a direction is followed."""
        return (1 - self.followed / 2) * self._metric.edge

    def _regular(self, vector: Tensor, product: Tensor) -> Tensor:
        """With weight decay's part: of the gradient at a theta, or of the Hessian's product with a vector."""
        decay = self._metric.decay
        return product.add(vector, alpha=decay) if decay else product

    def _space(
        self, search: Search, theta: Tensor, diagonal: Diagonal, downhill: Tensor, product: Tensor | None
    ) -> CriticalSpace:
        hessian: SymmetricOperator = Hessian(self.problem, theta)
        if self._metric.decay:
            hessian = Shifted(hessian, self._metric.decay)
        known = []
        if product is not None:
            known.append((diagonal.root_times(downhill), diagonal.over_root(product)))
        least = self._metric.edge - self._width
        space = search.space(theta, diagonal.seen_by(hessian), least, known)
        require_space(self, space, self._metric)
        return space


def _orthonormal(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal rows V and a matrix M with M V = directions, shapes (k, P) and (k, k)."""
    columns, triangle = torch.linalg.qr(directions.T)
    return columns.T.contiguous(), triangle.T.contiguous()


def _small(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
