"""Tasks and methods in Python files of the user's. They are code: what is imported here runs."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from msam.errors import InvalidStateError, InvalidValueError
from msam.training.recipe import Recipe
from msam.training.task import Task


@dataclass(frozen=True)
class UserFile:
    """A Python file as it was when the comparison began."""

    path: str
    sha256: str

    def load(self) -> ModuleType:
        """Run the file.

        Returns:
            Its module; cached per process.

        Raises:
            InvalidValueError: If it has changed since.
        """
        return _load(self)


@dataclass(frozen=True)
class FileSource(UserFile):
    """A task in a Python file of the user's, which defines ``task = Task(...)``, and may define recipes."""

    def describe(self) -> str:
        """Say where the task is from.

        Returns:
            In words.
        """
        return f"the task file {self.path!r}"

    def settings(self) -> dict[str, Any]:
        """Tell what the task's results depend on, besides what it says itself.

        Returns:
            JSON-able.
        """
        return {"file_sha256": self.sha256}

    def build(self) -> Task:
        """Run the file.

        Returns:
            Its task, with the recipes of the file; cached per process.

        Raises:
            InvalidValueError: If it defines no task.
        """
        return _task_of(self)


def find_file(path: str | Path, what: str) -> UserFile:
    """Point at a Python file as it is now.

    Args:
        path: Of the file.
        what: It must be, for messages.

    Returns:
        The file, with the hash of its content.

    Raises:
        InvalidValueError: If there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidValueError(f"{what}, found no file {str(path)!r}")
    return UserFile(str(file.resolve()), hashlib.sha256(file.read_bytes()).hexdigest())


def find_task_file(path: str | Path) -> FileSource:
    """Point at a user's task file as it is now.

    Args:
        path: Of a Python file.

    Returns:
        The source, with the hash of the file's content.

    Raises:
        InvalidValueError: If there is no such file.
    """
    found = find_file(path, "a task must be a Python file that defines `task = Task(...)`")
    return FileSource(found.path, found.sha256)


def find_method_file(path: str | Path) -> UserFile:
    """Point at a user's file of methods as it is now.

    Args:
        path: Of a Python file.

    Returns:
        The file, with the hash of its content.

    Raises:
        InvalidValueError: If there is no such file.
    """
    return find_file(path, "methods must be names, or a Python file that defines `recipe = msam.training.Recipe(...)`")


def recipes_of(file: UserFile) -> tuple[Recipe, ...]:
    """Take the methods that a file defines.

    Args:
        file: Defines ``recipe = Recipe(...)``, or ``recipes``, a list of such.

    Returns:
        The recipes.

    Raises:
        InvalidValueError: If there are none.
    """
    found = _recipes_in(file.load())
    if not found:
        raise InvalidValueError(
            f"a file of methods must define `recipe = msam.training.Recipe(...)`, or `recipes`, a list of such, found none in "
            f"{file.path!r}"
        )
    return found


@contextmanager
def blamed(where: str) -> Iterator[None]:
    """Say of errors on their way out where they were raised. To exit is an error too: it would end the comparison in silence.

    Args:
        where: In words.

    Yields:
        Nothing.

    Raises:
        InvalidStateError: In place of SystemExit.
    """
    try:
        yield
    except SystemExit as error:
        raise InvalidStateError(f"a task must not exit, found SystemExit({error.code!r}) in {where}; raise an error") from error
    except Exception as error:
        error.add_note(f"msam: raised in {where}")
        raise


def _recipes_in(module: ModuleType) -> tuple[Recipe, ...]:
    one, several = getattr(module, "recipe", None), getattr(module, "recipes", ())
    found = several if isinstance(several, list | tuple) else ()
    recipes = [each for each in (one, *found) if isinstance(each, Recipe)]
    return tuple({id(each): each for each in recipes}.values())  # `recipe` may be one of `recipes`


@lru_cache(maxsize=8)
def _task_of(source: FileSource) -> Task:
    module = source.load()
    task = getattr(module, "task", None)
    if not isinstance(task, Task):
        raise InvalidValueError(
            f"a task file must define `task = msam.training.Task(...)` at its top level, found "
            f"{type(task).__name__ if task is not None else 'no `task`'} in {source.path!r}"
        )
    more = tuple(recipe for recipe in _recipes_in(module) if recipe not in task.recipes)
    return replace(task, recipes=(*task.recipes, *more)) if more else task


@lru_cache(maxsize=32)
def _load(file: UserFile) -> ModuleType:
    content = Path(file.path).read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise InvalidValueError(f"the task file must not change during a comparison, found {file.path!r} changed; start again")
    spec = importlib.util.spec_from_file_location(f"msam_file_{file.sha256[:8]}", file.path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with blamed(f"the file {file.path!r}" if not isinstance(file, FileSource) else file.describe()):
        spec.loader.exec_module(module)
    return module
