"""Does a forward pass draw random numbers? Judged by the generators themselves, not by what came out."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.loss.draws import Numbers, entropy
from nm_ode.loss.forward_passes import around_modules
from nm_ode.loss.reachable import reachable


@dataclass(frozen=True)
class Generator:
    """A source of random numbers: where it was found, and how its state is read and put back."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]

    def state(self) -> bytes:
        """Something that changes when a number is drawn."""
        return pickle.dumps(_plain(self.get()))


def generators(*held_by: Any) -> list[Generator]:
    """torch's on every device, NumPy's and Python's, and those that these modules and functions hold."""
    found = [
        Generator("torch's generator", torch.get_rng_state, torch.set_rng_state),
        Generator("NumPy's global generator", np.random.get_state, np.random.set_state),
        Generator("Python's module random", random.getstate, random.setstate),
    ]
    if torch.cuda.is_initialized():
        for i in range(torch.cuda.device_count()):
            found.append(
                Generator(
                    f"torch's generator of cuda:{i}",
                    functools.partial(torch.cuda.get_rng_state, i),
                    functools.partial(torch.cuda.set_rng_state, device=i),
                )
            )
    other = torch.accelerator.current_accelerator()
    if other is not None and other.type != "cuda":
        module = torch.get_device_module(other.type)
        found.append(
            Generator(f"torch's generator of {other.type}", module.get_rng_state, module.set_rng_state)
        )
    held = (_generator(place, thing) for place, thing in reachable(held_by))
    return found + [generator for generator in held if generator is not None]


@contextmanager
def left_as_they_are(*held_by: Any) -> Iterator[None]:
    """All generators have at the end the state that they had at the beginning: the caller's draws do not change."""
    kept = [(generator, generator.get()) for generator in generators(*held_by)]
    try:
        yield
    finally:
        for generator, state in kept:
            generator.set(state)


def draws(run: Callable[[], object], watched: Sequence[Generator]) -> list[str]:
    """Names of the sources of random numbers that a run draws from, those watched first; [] if it draws nothing.

    A run that seeds a generator first, and so draws the same every time, counts as drawing nothing if it ran before.
    """
    before = [generator.state() for generator in watched]
    with Numbers() as numbers, entropy() as system:
        run()
    found = [
        generator.name for generator, state in zip(watched, before, strict=True) if generator.state() != state
    ]
    if not found and (numbers.seen or system):
        found = _differing(run, numbers)
    return found


def _differing(run: Callable[[], object], numbers: Numbers) -> list[str]:
    """Of a run that leaves all generators as they were: does it draw other numbers where torch's has another state?"""
    with left_as_they_are():
        torch.default_generator.manual_seed(917_263)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(917_263)
        with Numbers() as others, entropy() as system:
            run()
    found = [] if numbers.same_as(others) else ["a generator that it makes, or puts back afterwards"]
    return found + (["the operating system's random numbers"] if system else [])


def module_that_draws(run: Callable[[], object], roots: Mapping[str, nn.Module]) -> str | None:
    """The innermost module in whose forward numbers are drawn, as "module '1.drop' (Drop)"; None if it is none."""
    watched = generators(*roots.values())
    entered: list[list[bytes]] = []
    found: list[str] = []

    def enter(_: str) -> None:
        entered.append([generator.state() for generator in watched])

    def leave(words: str, *_: Any) -> None:
        if entered and entered.pop() != [generator.state() for generator in watched]:
            found.append(words)

    named = (
        (prefix + name, part)
        for prefix, root in roots.items()
        for name, part in root.named_modules()
        if name or not prefix  # the loss or objective as a whole is none
    )
    with around_modules(named, enter, leave):
        run()
    return found[0] if found else None


def _generator(place: str, thing: Any) -> Generator | None:
    name = f"the generator {place!r}"
    if isinstance(thing, torch.Generator):
        return Generator(name, thing.get_state, thing.set_state)
    if isinstance(thing, np.random.Generator):
        thing = thing.bit_generator
    if isinstance(thing, np.random.BitGenerator):
        return Generator(name, lambda: thing.state, lambda state: setattr(thing, "state", state))
    if isinstance(thing, np.random.RandomState):
        return Generator(name, thing.get_state, thing.set_state)
    if isinstance(thing, random.Random):
        return Generator(name, thing.getstate, thing.setstate)
    return None


def _plain(state: Any) -> Any:
    return state.cpu().numpy().tobytes() if isinstance(state, Tensor) else state
