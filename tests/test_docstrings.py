"""What the reference shows: every public name has a docstring whose lists are true and whose example runs."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import importlib.util
import inspect
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import nm_ode
import nm_ode.batch.tasks  # whose errors nobody else imports early
from tests.stand_ins import lend, make_results

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("nm_ode", "nm_ode.plots", "nm_ode.data", "nm_ode.models")
BEYOND = {  # what is needed to add something, and what runs a case
    "bridges": ("ENGINES", "Capabilities", "Engine", "Method", "OdeProblem", "Registry"),
    "nm_ode.charges": ("LAWS", "Law", "regimes"),
    "nm_ode.flows": ("FLOWS", "Cost"),
    "nm_ode.observers": ("OBSERVERS",),
    "nm_ode.optimizers": ("OPTIMIZERS", "SCHEDULES", "Schedule", "StabilityLimit", "StateLayout"),
    "nm_ode.reporting": ("PLOTS", "Plot"),
    "nm_ode.reporting.study.plots": ("STUDY_PLOTS",),
    "nm_ode.studies": ("REDUCTIONS", "find_case", "load", "load_case", "load_sweep"),
    "nm_ode.studies.losses": ("LOSSES", "Loss"),
    "nm_ode.symmetries": ("KINDS", "Part", "SymmetryKind"),
    "nm_ode.symmetries.operations.declared": ("Degree",),
}
LINES = 12  # of an example, at most
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")


class Public(NamedTuple):
    """A public name of a module."""

    module: str
    name: str

    @property
    def thing(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)

    @property
    def docstring(self) -> str:
        thing = self.thing
        if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
            return inspect.getdoc(thing) or ""
        return inspect.cleandoc(_of_a_value(self.module, self.name))

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _of_a_value(module: str, name: str) -> str:
    """The string below an assignment, where the name comes from."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node, after in pairwise([*tree.body, ast.Pass()]):
        match node, after:
            case (
                ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if found == name:
                return text
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
            return _of_a_value(str(node.module), name)
    return ""


NAMES = {module: importlib.import_module(module).__all__ for module in MODULES} | BEYOND
PUBLIC = [Public(module, name) for module, names in NAMES.items() for name in names]
CALLABLE = [one for one in PUBLIC if inspect.isroutine(one.thing) or inspect.isclass(one.thing)]
CLASSES = [one for one in CALLABLE if inspect.isclass(one.thing)]


MADE_BY_OTHERS = {"View"}  # what the loop gives to an observer


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("studies"))


def sections(docstring: str) -> dict[str, list[str]]:
    """The lines below each heading."""
    found: dict[str, list[str]] = {"": []}
    at = ""
    for line in docstring.splitlines():
        heading = line.removesuffix(":")
        if line.endswith(":") and heading in SECTIONS:
            at = heading
            assert at not in found, f"two sections {at}"
            found[at] = []
        else:
            found[at].append(line)
    return found


def entries(lines: list[str]) -> list[str]:
    """Names of a list: `rtol, atol: tolerances` are two."""
    heads = [line.strip() for line in lines if re.match(r" {4}\S", line)]
    assert all(": " in head or head.endswith(":") for head in heads), heads
    return [name.strip(" *`") for head in heads for name in head.partition(":")[0].split(",")]


def parameters(thing: Any) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


def methods(kind: type) -> dict[str, Any]:
    """Public methods and properties that are the project's own."""
    found = {}
    for name, member in inspect.getmembers_static(kind):
        own = next((base for base in kind.__mro__ if name in vars(base)), None)
        is_ours = own is not None and own.__module__.partition(".")[0] in ("nm_ode", "bridges")
        if is_ours and not name.startswith("_") and _is_member(member):
            found[name] = getattr(kind, name)
    return found


def _is_member(member: Any) -> bool:
    kinds = (property, classmethod, staticmethod)
    return inspect.isfunction(member) or isinstance(member, kinds) or hasattr(member, "func")


def is_made_by_nobody(thing: Any) -> bool:
    """Is it a class that is raised, or that has no instances of its own?"""
    if not inspect.isclass(thing):
        return False
    return issubclass(thing, Exception) or inspect.isabstract(thing) or getattr(thing, "_is_protocol", False)


@cache
def errors() -> frozenset[str]:
    """Names of the exceptions that there are."""
    found: set[type] = set()
    wanted: list[type] = [nm_ode.NmOdeError]
    while wanted:
        one = wanted.pop()
        found.add(one)
        wanted += [sub for sub in one.__subclasses__() if sub not in found]
    built_in = {name for name, one in vars(builtins).items() if inspect.isclass(one)}
    return frozenset(built_in | {one.__name__ for one in found})


def require_true_lists(thing: Any, docstring: str) -> None:
    """What `Args` and `Raises` name is there."""
    found = sections(docstring)
    if "Args" in found:
        assert sorted(entries(found["Args"])) == sorted(parameters(thing))
    unknown = set(entries(found.get("Raises", []))) - errors()
    assert not unknown, f"Raises names {unknown}"


@pytest.mark.parametrize("public", PUBLIC, ids=str)
def test_the_example_runs(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if "After `nm-ode run" in public.docstring:
        lend(request.getfixturevalue("results"), tmp_path)
    example = "\n".join(sections(public.docstring).get("Example", []))
    test = doctest.DocTestParser().get_doctest(example, {"__name__": "__main__"}, str(public), None, 0)
    lines = [line for one in test.examples for line in one.source.splitlines()]
    assert 2 <= len(lines) <= LINES
    assert any(one.want for one in test.examples), "an example shows what comes out"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        runner.run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("public", CALLABLE, ids=str)
def test_its_lists_are_true(public: Public) -> None:
    thing, found = public.thing, sections(public.docstring)
    require_true_lists(thing, public.docstring)
    if public.name not in MADE_BY_OTHERS and not is_made_by_nobody(thing):
        named = entries(found.get("Args", found.get("Attributes", [])))
        assert set(parameters(thing)) <= set(named)


@pytest.mark.parametrize("public", CLASSES, ids=str)
def test_its_methods_are_described(public: Public) -> None:
    bare = [name for name, one in methods(public.thing).items() if not inspect.getdoc(one)]
    assert not bare
    for one in methods(public.thing).values():
        if callable(one):
            require_true_lists(one, inspect.getdoc(one) or "")


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_an_integration_has_an_example_that_is_python(library: str) -> None:
    """Its library is not here, so that its module is read and not imported."""
    module = ast.parse((ROOT / f"nm_ode/integrations/{library}.py").read_text(encoding="utf-8"))
    (callback,) = (node for node in module.body if isinstance(node, ast.ClassDef))
    found = sections(ast.get_docstring(callback) or "")
    (made,) = (one for one in callback.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    taken = [one.arg for one in (*made.args.args, made.args.vararg, made.args.kwarg) if one is not None]
    assert sorted(entries(found["Args"])) == sorted(set(taken) - {"self"})
    examples = doctest.DocTestParser().get_examples("\n".join(found["Example"]))
    assert 2 <= len(examples) <= LINES
    for one in examples:
        ast.parse(one.source)
