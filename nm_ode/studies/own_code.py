"""The user's own Python that a case names: loaded, called, hashed; an error in it is reported with its line."""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nm_ode.loss.explain import EvaluationError
from nm_ode.registry import did_you_mean
from nm_ode.results.verified import sha256
from nm_ode.studies.entries import CodeTable
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case


def code_files(case: Case, path: Path) -> tuple[Path, ...]:
    """The Python files that a case names, each once; nothing is read or run.

    Args:
        path: the case file.
    """
    files = (path.parent / table.python.rpartition(":")[0] for table in case.code.values())
    return tuple(dict.fromkeys(files))


def file_hash(file: Path) -> str:
    """SHA-256 of a file; "" of one that cannot be read."""
    try:
        return sha256(file.read_bytes())
    except OSError:
        return ""


class OwnCode:
    """The Python files of one case.

    Each file is run once, so that model and data may share its classes. While a file is loaded or one of its functions
    builds something, its folder can be imported from; what comes from there counts as the case's code too.

    Args:
        path: the case file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._modules: dict[Path, ModuleType] = {}
        self._hashes: dict[Path, str] = {}
        self._keys: dict[Path, str] = {}

    @property
    def hashes(self) -> dict[str, str]:
        """Path relative to the case file's folder → SHA-256, of all that was loaded."""
        folder = self._path.parent.resolve()
        found = {
            Path(os.path.relpath(file, folder)).as_posix(): known for file, known in self._hashes.items()
        }
        return dict(sorted(found.items()))

    def function(self, key: str, table: CodeTable) -> Callable[..., Any]:
        """The function that a table names.

        Raises:
            CaseError: no such file or function, or the file raises an exception.
        """
        name, _, wanted = table.python.rpartition(":")
        module = self._module(key, name)
        found = getattr(module, wanted, None)
        if not callable(found):
            public = [
                word for word, value in vars(module).items() if callable(value) and not word.startswith("_")
            ]
            raise CaseError(
                f"{self._path}: {key}.python: {name} has no function {wanted!r}{did_you_mean(wanted, public)}"
            )
        function: Callable[..., Any] = found
        return function

    def call(self, key: str, table: CodeTable, **offered: Any) -> Any:
        """What the function gives for the table's other keys.

        Args:
            offered: keyword arguments that are passed if the function names them and the table does not.

        Raises:
            CaseError: as `function`; a key that the function does not take or one that it lacks; or it raises an
                exception.
        """
        function = self.function(key, table)
        arguments = self.arguments(key, table, function, offered=offered)
        with self.explained(), self._imported_beside(self._file(table)):
            return function(**arguments)

    def arguments(
        self,
        key: str,
        table: CodeTable,
        function: Callable[..., Any],
        *,
        positional: int = 0,
        offered: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The keyword arguments of a function, beside `positional` others in front.

        Raises:
            CaseError: a key that it does not take, or one that it lacks.
        """
        parameters = list(inspect.signature(function).parameters.values())[positional:]
        names = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        more = {name: value for name, value in (offered or {}).items() if name in names}
        arguments = more | table.options
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            for name in arguments:
                if name not in names:
                    hint = did_you_mean(name, ["python", *names])
                    raise CaseError(f"{self._path}: {key}: unknown key {name!r}{hint}")
        for one in parameters:
            if one.name in names and one.default is one.empty and one.name not in arguments:
                raise CaseError(f"{self._path}: {key}.{one.name}: is missing; {table.python} takes it")
        return arguments

    @contextmanager
    def explained(self) -> Iterator[None]:
        """An exception that came through the user's code becomes one sentence with file and line.

        Raises:
            CaseError: with the exception as its cause.
        """
        try:
            yield
        except CaseError:
            raise
        except (Exception, SystemExit) as error:
            own = error.__cause__ if isinstance(error, EvaluationError) else error
            if isinstance(own, Exception | SystemExit):
                for frame in reversed(traceback.extract_tb(own.__traceback__)):
                    file = Path(frame.filename)
                    if file in self._hashes:
                        raise self._error_at(file, frame.lineno, own) from error
            raise

    def _error_at(self, file: Path, line: int | None, error: BaseException) -> CaseError:
        key = self._keys.get(file)
        where = f"{self._path}: {key}.python" if key is not None else f"{self._path}"
        message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        return CaseError(f"{where}: {file.name}, line {line}: {type(error).__name__}: {message}".rstrip(": "))

    def _file(self, table: CodeTable) -> Path:
        return (self._path.parent / table.python.rpartition(":")[0]).resolve()

    def _module(self, key: str, name: str) -> ModuleType:
        file = (self._path.parent / name).resolve()
        if file in self._modules:
            if self._keys.get(file) != key:
                self._keys.pop(file, None)  # what goes wrong in it is no longer that of one key
            return self._modules[file]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CaseError(
                f"{self._path}: {key}.python: {file} cannot be read ({error.strerror or error}); a path is relative to "
                "the case file"
            ) from None
        self._hashes[file] = sha256(content)
        self._keys[file] = key
        module = ModuleType(f"{file.stem} ({self._hashes[file][:12]})")
        module.__file__ = str(file)
        sys.modules[module.__name__] = module  # dataclasses look their module up
        try:
            code = compile(content, str(file), "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise self._error_at(file, getattr(error, "lineno", None), error) from None
        with self.explained(), self._imported_beside(file):
            exec(code, vars(module))
        self._modules[file] = module
        return module

    @contextmanager
    def _imported_beside(self, file: Path) -> Iterator[None]:
        """Modules in the file's folder can be imported.

        They are forgotten afterwards, for another case may have others of the same names; but not what is installed,
        though the environment be a folder in this one.
        """
        installed = _installed_in(file.parent)
        folder, known, writes = file.parent, set(sys.modules), sys.dont_write_bytecode
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            sys.dont_write_bytecode = writes
            for name in set(sys.modules) - known:
                beside = getattr(sys.modules[name], "__file__", None)
                path = None if beside is None else Path(beside).resolve()
                if path is None or any(map(path.is_relative_to, installed)):
                    continue
                if path.is_relative_to(folder):
                    self._hashes[path] = file_hash(path)
                    del sys.modules[name]


def _installed_in(folder: Path) -> list[Path]:
    """Folders of Python's own and of installed packages that lie within this one."""
    folders = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    return [path for path in folders if path != folder and path.is_relative_to(folder)]
