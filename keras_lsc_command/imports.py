"""Modules of the user's own that a command runs first, and errors that come out of them."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

_IMPORTED: list[ModuleType] = []


class UserCodeError(RuntimeError):
    """A module that `--import` names cannot be imported; says why and where."""


def import_modules(given: list[str] | None) -> list[ModuleType]:
    """Imports the modules that `--import` names.

    Args:
        given: Paths of Python files, or names of modules; these are also looked for in the
            current folder.

    Returns:
        The modules.

    Raises:
        UserCodeError: One is not there, or raised.
    """
    modules = []
    for name in given or ():
        try:
            module = _from_file(Path(name)) if _is_path(name) else _by_name(name)
        except UserCodeError:
            raise
        # Anything may be wrong with code that is not ours; and a script may call sys.exit.
        except (Exception, SystemExit) as error:
            raise UserCodeError(f"--import {name}: {_described(error, _files(name))}") from error
        modules.append(module)
    _IMPORTED.extend(modules)
    return modules


def place_of(error: BaseException) -> str | None:
    """The line of an imported module in which an error arose, or None where none took part."""
    return _place(error, [part for module in _IMPORTED for part in _parts(module)])


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or "\\" in name


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise UserCodeError(f"--import {path}: the file {problem}; expected a Python file.")
    file = path.resolve()
    name = file.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(file):
            return known
        raise UserCodeError(
            f"--import {path}: a module {name!r} is imported already; give the file another name."
        )
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserCodeError(f"--import {path}: the file must end in .py.")
    # What lies beside it can be imported, as of a script, but takes no other module's place.
    _search(file.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _by_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserCodeError(
            f"--import {name}: expected the path of a Python file, or the name of a module."
        )
    _search(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise UserCodeError(
            f"--import {name}: there is no module of that name, neither installed nor in this "
            "folder; expected a module, or the path of a Python file."
        ) from error


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _files(name: str) -> list[Path]:
    """The files, or the folder, of a module that may not have been imported to its end."""
    if _is_path(name):
        return [Path(name).resolve()]
    folder = Path.cwd() / name.partition(".")[0]
    return [folder, folder.with_suffix(".py")]


def _parts(module: ModuleType) -> list[Path]:
    if module.__file__ is None:
        return []
    file = Path(module.__file__).resolve()
    return [file.parent if file.name == "__init__.py" else file]


def _described(error: BaseException, files: list[Path]) -> str:
    # A SyntaxError names its line itself.
    place = None if isinstance(error, SyntaxError) else _place(error, files)
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{text} ({place})" if place else text


def _place(error: BaseException, files: list[Path]) -> str | None:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if any(file == part or part in file.parents for part in files):
            where = "" if frame.name.startswith("<") else f", in {frame.name}"
            return f"{file.name}, line {frame.lineno}{where}"
    return None
