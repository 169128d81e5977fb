"""Entries moved about: slices, turns, lookups by known and by data-made indices, padding, scatters."""

from __future__ import annotations

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.templates.table import expressions, template

for _ in range(2):
    expressions(
        "move",
        """
    {x}.flatten(1) ; {x}.flip(-1) ; {x}.roll(1, -1) ; {x}.transpose(1, -1) ; {x}.chunk(2, -1)[0] ;
    {x}[..., 1:] ; {x}[..., :-1] ; {x}.unflatten(-1, (2, -1)) ; {x}.mean(1) ; {x}[:, 0] ; {x}[:, -1] ;
    torch.cat([{x}, {x}.flip(-1)], -1) ; {x}.unsqueeze(1) ; {x}.squeeze(1) ; {x}.repeat_interleave(2, -1) ;
    {x}.repeat(1, 2) ; {x}.tile((1, 2)) ; {x}.swapaxes(1, -1) ;
    torch.cat([{x}[..., 2:], {x}[..., :2]], -1) ;
""",
    )
expressions(
    "move",
    """
    F.pad({x}, (1, 0)) ; F.pad({x}, (1, 1), value=1.0) ; torch.tril({x}) ;
    torch.cat([{x}, torch.zeros_like({x})], -1) ; {x}.unfold(-1, 2, 1) ; {x}.split(2, -1)[0] ;
    torch.stack([{x}, {x}], 1) ; torch.stack([{x}, 2 * {x}], -1) ;
    torch.cat([{x}, torch.ones_like({x}[..., :1])], -1) ; {x}.diagonal(dim1=-2, dim2=-1) ;
    {x}.expand_as({x}).clone() ; written({x}, (..., 0), 0.0) ; written({x}, (..., slice(1, None)), 1.0) ;
    written({x}, {x} < 0, 0.0) ; written({x}, (..., 0), {x}[..., 1]) ;
    {x}.index_fill(-1, torch.tensor([0]), 0.0) ; torch.rot90({x}, 1, (1, -1)) ;
    {x}.clone().mul_({x}.sign()) ; {x}.clone().zero_() + {x} ;
    {x}.index_add(1, torch.tensor([0]), {x}[:, :1]) ; {x}.movedim(1, -1) ; torch.atleast_3d({x}) ;
    F.pixel_shuffle({x}, 1) ; F.interpolate({x}, scale_factor=2) ; torch.broadcast_to({x}, {x}.shape) ;
    torch.hstack([{x}, {x}]) ; torch.narrow({x}, -1, 1, 2) ;
    {x}.new_zeros({x}.shape).scatter_add(1, {x}.argsort(1), {x}) ;
    {x}.gather(-1, {x}.argmax(-1, keepdim=True)) ; torch.take_along_dim({x}, {x}.argsort(-1), -1) ;
    {x}[torch.arange(len({x})).flip(0)] ; {x}.flip(0) ; {x}.roll(1, 0) ; {x}[{x}[:, 0].argsort()] ;
    {x}.index_select(-1, torch.tensor([1, 0])) ;
""",
)


@template("move")
@template("move")
def known_places(drawer: Drawer) -> str:
    x = drawer.tensor()
    c = drawer.places(drawer.width(), drawer.shape(x)[-1])
    return drawer.choice(
        [
            f"{x}[..., {c}]",
            f"{x}.index_select(-1, {c})",
            f"torch.zeros_like({x}).index_add(-1, {c}, {x}[..., {c}])",
            f"{x}.gather(1, {c}.expand(len({x}), -1))",
        ]
    )


@template("move")
def places_of_data(drawer: Drawer) -> str:
    x = drawer.tensor(2)
    n = drawer.shape(x)[-1]
    return drawer.choice(
        [
            f"{x}.gather(1, ids % {n})",
            f"{x}[torch.arange(len({x})), k % {n}].unsqueeze(1)",
            f"torch.take_along_dim({x}, ids % {n}, 1)",
            f"torch.zeros_like({x}).scatter_add(1, ids.clamp(max={n - 1}), {x}[:, :3])",
            f"{x}[k]",
        ]
    )


@template("move")
def rows_of_weights(drawer: Drawer) -> str:
    """A row for each sample, by a number that the data makes, or the network."""
    n = drawer.width()
    x = drawer.tensor(2)
    table = drawer.weight(drawer.shape(x)[-1], n)
    return drawer.choice(
        [
            f"{table}[{x}.argmax(-1)]",
            f"{table}[(x[:, 0] > 0).long()]",
            f"{table}[{x}.argsort(-1)].flatten(1)",
            f"{table}[:2][k % 2]",
            f"{table}.expand(len({x}), -1, -1).flatten(1)",
            f"{table}[None].repeat(len({x}), 1, 1)",
            f"{table}[0] + {x}[:, :1]",
            f"torch.where({x}[:, :1] > 0, {table}[0], {table}[1])",
        ]
    )


@template("move")
def parts_that_are_read(drawer: Drawer) -> str:
    """Of several results one alone is read, or meets anything but zeros."""
    x = drawer.tensor()
    y, n = drawer.like(x), drawer.shape(x)[-1]
    table = drawer.weight(3, n)
    return drawer.choice(
        [
            f"torch.stack([{x}, {y}], 1)[:, 0]",
            f"torch.cat([{x}, {y}], -1).chunk(2, -1)[1]",
            f"torch.cat([{x}, {y}], 1)[:, :1]",
            f"torch.zeros_like({x}) * {y} + {x}",
            f"F.linear(torch.zeros_like({x}), {drawer.weight(n, n)}, {x}.flatten(0, -2)[0]) + {x}",
            f"{x} + F.embedding(torch.zeros_like(k), {table}).view(-1, *[1] * ({x}.ndim - 2), {n})",
            f"{x} + F.embedding(torch.arange(3).flip(0)[1:][k % 2], {table}).view(-1, *[1] * ({x}.ndim - 2), {n})",
        ]
    )
