"""How a drawn network ends: what nobody has read is put together, and one of several losses is taken of it."""

from __future__ import annotations

from tests.random_graphs.drawing import Drawer, MisfitError
from tests.random_graphs.program import CLASSES, Program
from tests.random_graphs.templates import next_line

_LOSSES = """
    F.mse_loss({o}, y) ; F.cross_entropy({o}, k) ; F.mse_loss({o}, y) ; F.cross_entropy({o}, k) ;
    F.mse_loss({o}, y) ; F.cross_entropy({o}, k) ; F.mse_loss({o}, y) ; F.cross_entropy({o}, k) ;
    F.mse_loss({o}, y) ; F.cross_entropy({o}, k) ; F.mse_loss({o}, y) ; F.cross_entropy({o}, k) ;
    F.mse_loss({o}, y, reduction='sum') ; F.cross_entropy({o}, k, label_smoothing=0.1) ;
    F.cross_entropy({o}, k, {weights}) ; F.cross_entropy({o}, k, ignore_index=1) ; F.l1_loss({o}, y) ;
    F.huber_loss({o}, y) ; F.binary_cross_entropy_with_logits({o}, b) ;
    F.nll_loss(F.log_softmax({o}, -1), k) ; -torch.log_softmax({o}, -1).gather(1, k[:, None]).mean() ;
    ({o}[torch.arange(len(k)), k] - y[:, 0]).square().mean() ;
    F.kl_div(F.log_softmax({o}, -1), b, reduction='batchmean') ; (1 - F.cosine_similarity({o}, y)).mean() ;
    F.cross_entropy({o}, b) ; F.cross_entropy({o} @ {o}.T, torch.arange(len({o}))) ;
    F.multi_margin_loss({o}, k) ; F.mse_loss(torch.softmax({o}, -1), b) ;
    F.cross_entropy({o}, k) + F.mse_loss({o}.detach(), y) ; F.cross_entropy({o}, k) + 0.1 * {o}.var() ;
    torch.relu(1 - {o}[:, 0] + {o}[:, 1]).mean() ; -torch.log_softmax({o}, 0)[:, 0].mean() ;
    ({o} - {o}.mean(0)).square().sum() ; {o}.square().sum(-1).sqrt().mean() * y.mean() ;
    F.cross_entropy({o}, k, reduction='none').max() ; ({o} * y).sum() ; F.smooth_l1_loss({o}, y) ;
    F.poisson_nll_loss({o}, b) ;  F.soft_margin_loss({o}, b) ;
    F.triplet_margin_loss({o}, {o}.flip(0), y) ;
    torch.logsumexp({o}, -1).mean() - {o}.gather(1, k[:, None]).mean() ;
    F.cross_entropy({o}, k) + 1e-2 * {p}.square().sum() ; F.mse_loss({o}, y) + 1e-2 * {p}.abs().sum() ;
    F.mse_loss({o} - {o}.mean(-1, True), y) ; F.cross_entropy({o} / {o}.norm(dim=-1, keepdim=True), k) ;
"""


def draw(seed: int, lines: int | None = None) -> Program:
    """A random program of about so many lines, 3 to 12 if None."""
    drawer = Drawer(seed)
    _start(drawer)
    for _ in range(lines or drawer.random.randint(3, 12)):
        _try(drawer, lambda: drawer.emit(next_line(drawer)(drawer)))
    try:
        _end(drawer)
    except MisfitError:  # nothing that ends in a loss
        return draw(seed + 10**6, lines)
    program = drawer.program()
    return program if program.parameters else draw(seed + 10**6, lines)


def _try(drawer: Drawer, make: object, attempts: int = 30) -> None:
    for _ in range(attempts):
        try:
            make()  # type: ignore[operator]
        except MisfitError:
            continue
        return


def _start(drawer: Drawer) -> None:
    """Layers of some of the inputs."""
    n = drawer.width()
    sources = {
        "x": lambda: f"F.linear(x, {drawer.weight(n, 4)}, {drawer.weight(n)})",
        "s": lambda: f"F.linear(s, {drawer.weight(n, 4)}, {drawer.weight(n)})",
        "im": lambda: f"F.conv2d(im, {drawer.weight(n, 2, 3, 3)}, {drawer.weight(n)}, padding=1)",
        "ids": lambda: f"F.embedding(ids, {drawer.weight(5, n)})",
        "data": lambda: "s * 1.0",
    }
    for name in drawer.random.sample(["x", "x", "s", "im", "ids", "data"], drawer.choice([1, 1, 2])):
        _try(drawer, lambda name=name: drawer.emit(sources[name]()))


def _end(drawer: Drawer) -> None:
    unread = [name for name in drawer.batched if name in drawer.unread][-3:] or drawer.batched[-1:]
    ends = []
    for name in unread:
        shape = drawer.shape(name)
        if shape[1:] == (CLASSES,) and drawer.chance(0.4):
            ends.append(name)
            continue
        if len(shape) > 2:
            pooled = drawer.choice(["{x}.mean(1).flatten(1)", "{x}.flatten(1)", "{x}.flatten(2).mean(-1)"])
            name = drawer.emit(pooled.format(x=name))
        elif len(shape) == 1:
            name = drawer.emit(f"{name}[:, None]")
        n = drawer.shape(name)[-1]
        bias = drawer.weight(CLASSES) if drawer.chance(0.7) else None
        ends.append(drawer.emit(f"F.linear({name}, {drawer.weight(CLASSES, n)}, {bias})"))
    out = drawer.emit(" + ".join(ends)) if len(ends) > 1 else ends[0]

    def loss() -> None:
        form = drawer.choice([form for part in _LOSSES.split(";") if (form := part.strip())])
        weights = drawer.constant(drawer.value(drawer.normal(CLASSES)).abs()) if "{weights}" in form else ""
        drawer.emit(
            form.format(o=out, weights=weights, p=drawer.choice(list(drawer.parameters))), scalar=True
        )

    _try(drawer, loss)
