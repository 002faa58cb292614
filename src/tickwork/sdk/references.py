"""Where an implementation is found: `package.module:attribute`, or `path/to/file.py:attribute` below a base folder.

Both directions live here: the reference of a function that somebody has in hand, and the object behind a reference.
A file is loaded under a module name of its own (two graphs may both have a `task.py`), with its folder and the base
folder importable; the same file is loaded again only after it has changed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tickwork.model.problems import Location, Problem

FILE_MARK = "__tickwork_file__"
"""Set in a module that was loaded from a file here: its name means nothing to another process."""

T = TypeVar("T")

_loading = threading.local()


class ReferenceFault(Exception):
    """A reference that leads nowhere; `problem` says why and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def is_loading() -> bool:
    """Whether this thread is loading an author's module right now: code at its top level must not start a run."""
    return getattr(_loading, "depth", 0) > 0


def split(reference: str) -> tuple[str, str]:
    """The module or file of a reference, and the attribute (empty when there is none)."""
    where, colon, attribute = reference.rpartition(":")
    if not colon or (len(where) == 1 and where.isalpha()):
        return reference, ""
    return where, attribute


def is_file(where: str) -> bool:
    """Whether the first half of a reference means a file."""
    return where.endswith(".py") or "/" in where or os.sep in where


def name_of(function: Any, base: Path) -> tuple[str, str]:
    """The reference of a function or class, and why no other process can load it ("" when one can)."""
    function = inspect.unwrap(function)
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    name = getattr(function, "__module__", None) or "__main__"
    module = sys.modules.get(name)
    file = getattr(module, FILE_MARK, None) or getattr(module, "__file__", None)
    where = name
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        where = spec.name if spec is not None else _relative(file, base)
    elif file and (hasattr(module, FILE_MARK) or _lies_beside(name, module, Path(file), base)):
        where = _relative(file, base)
    why = ""
    if not where:
        why = "it was defined in an interactive session, which is in no file"
        where = name
    elif "<locals>" in qualname or "<lambda>" in qualname:
        why = "it is defined inside another function, or a lambda, and so it has no name at the top of its module"
    elif _attribute(module, qualname) is None:
        why = f"its module has no `{qualname}`"
    return f"{where}:{qualname}", why


def _lies_beside(name: str, module: ModuleType | None, file: Path, base: Path) -> bool:
    # `import hello` and `tickwork run hello.py` have to give the same graph the same digest.
    return "." not in name and not hasattr(module, "__path__") and file.resolve().is_relative_to(base.resolve())


def _relative(file: str | None, base: Path) -> str:
    if not file or not os.path.exists(file):  # noqa: PTH110 - `<stdin>` is a file name here, and no path
        return ""
    return Path(os.path.relpath(Path(file).resolve(), base.resolve())).as_posix()


def resolve(reference: str, base: Path, at: Location, subject: str = "") -> Any:
    """The object behind a reference. Raises ReferenceFault; `at` is where the reference was written."""
    where, attribute = split(reference)
    if not where or not attribute:
        hint = "write `package.module:attribute`, or `path/to/file.py:attribute` relative to the graph's file"
        raise ReferenceFault(Problem(at, "bad_reference", f"`{reference}` is no reference to code", hint, subject))
    if is_file(where):
        path = Path(where) if Path(where).is_absolute() else base / where
        if not path.is_file():
            hint = f"make the file, or correct the path; it is looked for below {base}"
            raise ReferenceFault(Problem(at, "missing_file", f"there is no file {path}", hint, subject))
        module = load_file(path, base, subject)
    else:
        module = load_module(where, base, at, subject)
    found = _attribute(module, attribute)
    if found is None:
        hint = _near(attribute, module)
        raise ReferenceFault(Problem(at, "missing_attribute", f"`{where}` has no `{attribute}`", hint, subject))
    return found


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def _near(attribute: str, module: ModuleType) -> str:
    from tickwork.model.validation import nearest

    public = [name for name in vars(module) if not name.startswith("_")]
    near = nearest(attribute, public)
    return f"did you mean `{near}`?" if near else "define it at the top of the module, or correct the name"


def load_module(name: str, base: Path, at: Location, subject: str = "") -> ModuleType:
    """Imports a module by name, with `base` importable. Raises ReferenceFault."""
    _make_importable(base)
    return _guarded(lambda: importlib.import_module(name), name, at, subject)


def load_file(path: Path, base: Path, subject: str = "") -> ModuleType:
    """Loads a file as a module of its own name. Raises ReferenceFault with the line that failed."""
    path = path.resolve()
    main = sys.modules.get("__main__")
    if main is not None and _same_file(getattr(main, "__file__", None), path):
        return main
    name = f"_tickwork_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}_{_word(path.stem)}"
    stat = path.stat()
    version = (str(path), stat.st_mtime_ns, stat.st_size)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__tickwork_version__", None) == version:
        return loaded
    for folder in (base, path.parent):
        _make_importable(folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        problem = Problem(Location(str(path)), "import_failed", "this file is no Python source", "", subject)
        raise ReferenceFault(problem)
    module = importlib.util.module_from_spec(spec)
    setattr(module, FILE_MARK, str(path))
    module.__dict__["__tickwork_version__"] = version
    loader = spec.loader
    sys.modules[name] = module
    try:
        _guarded(lambda: loader.exec_module(module), path.name, Location(str(path), 1), subject)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _same_file(file: str | None, path: Path) -> bool:
    return bool(file) and Path(file or "").resolve() == path


def _word(stem: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in stem)


def _make_importable(folder: Path) -> None:
    text = str(folder.resolve())
    if text not in sys.path:
        sys.path.insert(0, text)


def _guarded(load: Callable[[], T], what: str, at: Location, subject: str) -> T:
    """Runs an author's module; whatever it raises becomes a problem at the author's line."""
    _loading.depth = getattr(_loading, "depth", 0) + 1
    try:
        return load()
    except (ReferenceFault, MemoryError):
        raise
    except SyntaxError as error:
        place = Location(error.filename or at.file, error.lineno or 0, error.offset or 0)
        hint = "correct the syntax"
        raise ReferenceFault(Problem(place, "import_failed", f"{what}: {error.msg}", hint, subject)) from None
    except ModuleNotFoundError as error:
        place = author_frame(error) or at
        missing = error.name or ""
        if what == missing or what.startswith(missing + "."):
            hint = "correct the name, or run from the folder that has the module"
            problem = Problem(at, "missing_module", f"there is no module `{missing}`", hint, subject)
            raise ReferenceFault(problem) from None
        message = f"{what} imports `{missing}`, which is not installed"
        raise ReferenceFault(Problem(place, "import_failed", message, "install it", subject)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an author's module may raise anything
        place = author_frame(error) or at
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        message = f"{what} could not be loaded: {text}"
        hint = "the code at the top of the module has to run without an error"
        raise ReferenceFault(Problem(place, "import_failed", message, hint, subject)) from None
    finally:
        _loading.depth -= 1


_OURS = str(Path(__file__).resolve().parents[1]) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - compared with the file names of frames, as they are


def author_frame(error: BaseException) -> Location | None:
    """The last place in code that is neither ours nor a library's; None when the traceback has none."""
    found = last = None
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        place = Location(file, step.tb_lineno)
        if not file.startswith((_OURS, "<frozen")):
            last = place
            if not file.startswith(_LIBRARY) and "site-packages" not in file:
                found = place
        step = step.tb_next
    return found or last
