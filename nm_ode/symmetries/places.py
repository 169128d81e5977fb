"""Where in the user's code an operation of the graph is: the function that was called, the module, the line."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.fx import Node

from nm_ode.symmetries.operations import operation

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n\s*(?P<code>.*)')
_NOT_THE_USERS = tuple(
    str(folder)
    for of in (torch.__file__, Path(__file__).parent)
    for folder in (Path(of).parent, Path(of).resolve().parent)
)
_INTERPRETER = str(Path(traceback.__file__).parent) + "/"


@dataclass(frozen=True)
class Place:
    """Of an operation.

    Attributes:
        operation: as the graph has it.
        part_of: the function of torch that it was taken apart from ("gru", "scaled_dot_product_attention"), or "".
        module: its path in the model, "" for the model itself.
        in_loss: it is the loss's, not the model's.
        file, line, code: of the user's; "" and 0 where nothing is known.
    """

    operation: str
    part_of: str = ""
    module: str = ""
    in_loss: bool = False
    file: str = ""
    line: int = 0
    code: str = ""

    def __str__(self) -> str:
        of = f" (of {self.part_of})" if self.part_of else ""
        where = (
            "in the loss" if self.in_loss else f"in {self.module}" if self.module else "in the model itself"
        )
        line = f", {self.file}:{self.line}" if self.file else ""
        return f"{self.operation}{of} {where}{line}"


def place_of(node: Node) -> Place:
    """Where a node's operation was called."""
    name = operation(node)
    function = node.meta.get("torch_fn", ("", ""))[1].rpartition(".")[2]
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    path = stack[-1] if stack else ""
    file, line, code = _users_line(node.meta.get("stack_trace") or "")
    apart = function if function and _plain(function) != _plain(name) and not _same(function, name) else ""
    in_model = path == "model" or path.startswith("model.")
    return Place(
        name, apart, path.removeprefix("model").lstrip("."), bool(stack) and not in_model, file, line, code
    )


def is_users(file: str) -> bool:
    """Is a file of Python neither torch's, nm_ode's nor the interpreter's?"""
    return not file.startswith((*_NOT_THE_USERS, "<", _INTERPRETER)) or "<ipython" in file


def _users_line(trace: str) -> tuple[str, int, str]:
    """The innermost line that is neither torch's nor nm_ode's."""
    frames = [frame for frame in _FRAME.finditer(trace) if is_users(frame["file"])]
    if not frames:
        return "", 0, ""
    frame = frames[-1]
    return Path(frame["file"]).name, int(frame["line"]), frame["code"].strip()


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _same(function: str, name: str) -> bool:
    """Spellings of one operation: `__add__`, `batch_norm` and `native_batch_norm`."""
    return _plain(function) in _plain(name) or _plain(name) in _plain(function)
