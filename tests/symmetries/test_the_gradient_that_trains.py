"""A symmetry is one of the gradient that trains: what changes that gradient is left out, what does not is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import nm_ode
from nm_ode.charges import LawError
from nm_ode.loss.guards import only_looking
from nm_ode.symmetries import SymmetryError, find_symmetries, scan_symmetries, symmetries_of
from tests.oracles.networks import OnceRelu, Reversed, Sign
from tests.symmetries.other_batches import worst_constraint


class _Model(nn.Module):
    """Two linear layers, and between them what the test says."""

    def __init__(self, between: Callable[[_Model, Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self, x))


def hidden(model: _Model, x: Tensor) -> Tensor:
    return F.relu(model.a(x))


class _Clipped(Reversed):
    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-1, 1)


def hooked(change: Callable[[Tensor], Tensor | None]) -> Callable[[_Model, Tensor], Tensor]:
    def between(model: _Model, x: Tensor) -> Tensor:
        h = hidden(model, x)
        if h.requires_grad:
            h.register_hook(change)
        return h

    return between


def by_a_stopped_norm(model: _Model, x: Tensor) -> Tensor:
    h = hidden(model, x)
    return h / (1e-12 + h.norm(dim=1, keepdim=True)).detach()


def by_a_norm_without_gradient(model: _Model, x: Tensor) -> Tensor:
    h = hidden(model, x)
    with torch.no_grad():
        norm = 1e-12 + h.norm(dim=1, keepdim=True)
    return h / norm


def by_a_norm_from_inference(model: _Model, x: Tensor) -> Tensor:
    h = hidden(model, x)
    with torch.inference_mode():
        norm = 1e-12 + h.norm(dim=1, keepdim=True)
    return h / norm.clone()


def a_trunk_that_does_not_train(model: _Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return hidden(model, x)


CHANGED = {
    "reversed": lambda model, x: Reversed.apply(hidden(model, x)),
    "clipped": lambda model, x: _Clipped.apply(hidden(model, x)),
    "straight through": lambda model, x: Sign.apply(hidden(model, x) - 0.1),
    "straight through by detach": lambda model, x: (lambda h: h + (h.round() - h).detach())(hidden(model, x)),
    "doubled by a hook": hooked(lambda grad: 2 * grad),
    "clipped by a hook": hooked(lambda grad: grad.clamp(-1, 1)),
    "a stopped norm": by_a_stopped_norm,
    "a norm without gradient": by_a_norm_without_gradient,
    "a norm from inference mode": by_a_norm_from_inference,
    "a trunk that does not train": a_trunk_that_does_not_train,
}
KEPT = {
    "a right backward": lambda model, x: OnceRelu.apply(model.a(x)),
    "a hook that only looks": hooked(lambda grad: None),
    "a checkpoint": lambda model, x: checkpoint(lambda z: hidden(model, z), x, use_reentrant=False),
    "a reentrant checkpoint": lambda model, x: checkpoint(
        lambda z: hidden(model, z), x.detach().requires_grad_(), use_reentrant=True
    ),
    "the same layer for each sample": lambda model, x: torch.stack([hidden(model, row) for row in x]),
}


def batches(normal: Callable[..., Tensor]) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [(5 * normal(n, 4, seed=n), torch.randint(3, (n,), generator=random)) for n in (8, 20)]


@pytest.mark.parametrize("name", CHANGED)
def test_no_symmetry_of_another_gradient(name, normal):
    model = _Model(CHANGED[name])
    found = find_symmetries(model, normal(8, 4), "cross_entropy")
    assert found.defects == ()
    assert {s.name for s in found} == {"translation b"}  # which reads no gradient of `a`
    assert worst_constraint(model, F.cross_entropy, found, batches(normal)) < 1e-12


@pytest.mark.parametrize("name", KEPT)
def test_the_same_gradient_in_another_way(name, normal):
    model = _Model(KEPT[name])
    found = find_symmetries(model, normal(8, 4), "cross_entropy")
    assert {s.name for s in found} == {"translation b", "rescale a → b"}
    assert (found.defects, found.left_out) == ((), ())
    assert worst_constraint(model, F.cross_entropy, found, batches(normal)) < 1e-12


def test_what_is_left_out_is_named(normal):
    model = _Model(CHANGED["reversed"])
    (sentence,) = find_symmetries(model, normal(8, 4)).left_out
    with pytest.raises(SymmetryError, match="another one"):  # nothing is searched for either
        scan_symmetries(model, normal(8, 4))
    for part in ("rescale a → b", "a.weight", "Reversed"):
        assert part in sentence


def test_a_domain_classifier_behind_reversed_gradients(normal):
    # DANN: two heads, one of them by a reversed gradient. Only the features' layer trains by another gradient.
    class Dann(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.c, self.d = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.f(x))
            return torch.cat([self.c(h), self.d(Reversed.apply(h))], 1)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output[:, :3], y % 3) + F.cross_entropy(output[:, 3:], y % 2)

    y = torch.randint(6, (32,), generator=torch.Generator().manual_seed(0))
    found = find_symmetries(Dann(), normal(32, 4), loss, target=y)
    assert {s.name for s in found} == {"translation c", "translation d"}
    assert len(found.left_out) == 1


@pytest.mark.parametrize("hook", ["module", "parameter"])
def test_hooks_of_modules_and_parameters(hook, normal):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    if hook == "module":
        model[1].register_full_backward_hook(lambda module, into, out: (2 * into[0],))
    else:
        model[0].weight.register_hook(lambda grad: 2 * grad)
    found = find_symmetries(model, normal(8, 4))
    assert {s.name for s in found} == {"translation 2"}
    assert "0.weight" in found.left_out[0]


def test_a_hook_that_only_looks_is_none(normal):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    model[0].weight.register_hook(only_looking(lambda grad: None))
    found = find_symmetries(model, normal(8, 4))
    assert {s.name for s in found} == {"translation 2", "rescale 0 → 2"}
    assert not found.left_out


def test_no_law_is_claimed_of_charges_that_training_does_not_have(normal):
    # Nothing but the features: no symmetry at all is left, so no charge, and no law.
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    model[1].register_full_backward_hook(lambda module, into, out: (2 * into[0],))
    problem = nm_ode.Problem(model, F.mse_loss, (normal(16, 4), normal(16, 3)))
    found = symmetries_of(problem)
    assert len(found) == 0
    assert len(found.left_out) == 1
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=5, observe=[nm_ode.Charges(found)])
    with pytest.raises(LawError):
        nm_ode.predict_charges(run, "exact")


@pytest.mark.parametrize(
    ("layer", "named"),
    [(nn.Hardsigmoid(), "hardsigmoid"), (nn.EmbeddingBag(7, 4), "embedding_bag")],
    ids=lambda value: type(value).__name__,
)
def test_layers_without_a_second_derivative(layer, named, normal):
    bag = isinstance(layer, nn.EmbeddingBag)
    first = layer if bag else nn.Sequential(nn.Linear(4, 4), layer)
    x = torch.randint(7, (8, 4), generator=torch.Generator().manual_seed(0)) if bag else normal(8, 4)
    model = nn.Sequential(first, nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    found = find_symmetries(model, x)
    means_of_rows = {"rescale 0 → 1": 4} if bag else {}
    assert {s.name: s.count for s in found.of_kind("rescale")} == {**means_of_rows, "rescale 1 → 3": 5}
    assert found.n_charges("translation") == 6
    for check in found.checks.values():
        assert check.unexplained < 1e-12
        if check.hessian is None:  # said, and not taken for zero
            assert check.missing == named
            assert named in found.notes[0]
        else:  # where it is written out
            assert check.hessian < 1e-10


def test_what_the_model_does_in_its_own_dtype(normal):
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) * (1 if x.dtype == torch.float32 else 10)

    with pytest.raises(nm_ode.NmOdeError, match="float32"):
        find_symmetries(Asks(), normal(8, 4).float())
