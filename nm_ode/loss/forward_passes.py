"""Which module a forward pass is in, and how a module is named to a user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


def described(name: str, module: nn.Module) -> str:
    """ "module '1.drop' (Drop)"; "the model (Net)" for the one that has no name."""
    kind = type(module).__name__
    return f"module {name!r} ({kind})" if name else f"the model ({kind})"


@contextmanager
def around_modules(
    named: Iterable[tuple[str, nn.Module]],
    enter: Callable[[str], object],
    leave: Callable[[str, Any, Any], object],
) -> Iterator[None]:
    """Within this block modules tell when their forward pass begins and ends.

    Args:
        named: as of `named_modules`.
        enter: told the module, as `described`.
        leave: told the module, its inputs and its output.
    """
    with ExitStack() as hooks:
        for name, module in named:
            label = described(name, module)

            def before(_module: nn.Module, _args: Any, label: str = label) -> None:
                enter(label)

            def after(_module: nn.Module, args: Any, made: Any, label: str = label) -> None:
                leave(label, args, made)

            hooks.callback(module.register_forward_pre_hook(before).remove)
            hooks.callback(module.register_forward_hook(after).remove)
        yield
