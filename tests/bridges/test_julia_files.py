"""Julia's side is Julia: without one here, a slip of the pen would only show where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tree_sitter_julia
from tree_sitter import Language, Parser

import bridges.julia

FILES = sorted(Path(bridges.julia.__file__).parent.rglob("*.jl"))


def errors(source: bytes) -> list[str]:
    """Where a text is no Julia, by the grammar of tree-sitter."""
    tree = Parser(Language(tree_sitter_julia.language())).parse(source)
    found, nodes = [], [tree.root_node]
    while nodes:
        node = nodes.pop()
        if node.is_error or node.is_missing:
            found.append(f"line {node.start_point[0] + 1}: {node.type}")
        nodes += node.children if node.has_error else []
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_julia(path: Path) -> None:
    assert errors(path.read_bytes()) == []


def test_there_are_files() -> None:
    assert {"nm_bridge.jl", "nm_noise.jl"} <= {path.name for path in FILES}


SAMPLE = b"""
module Sample

using LinearAlgebra

"A docstring."
function scaled!(y, x; factor = 2.0)
    @. y = factor * x
    isempty(y) && return nothing
    for i in eachindex(y)
        y[i] = y[i] > 0 ? y[i] : "text $(i)"
    end
    return y
end

end
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"    end\n", b"\n"),
        (b"(y, x; factor", b"(y, x; factor ="),
        (b"return y", b"return (y"),
        (b"using ", b"using , "),
        (b"? y[i] :", b"? y[i]"),
        (b'$(i)"', b"$(i)"),
    ],
)
def test_what_is_no_julia_is_seen(before: bytes, after: bytes) -> None:
    assert errors(SAMPLE) == []
    assert SAMPLE.count(before) == 1
    assert errors(SAMPLE.replace(before, after)) != []
