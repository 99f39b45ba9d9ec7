"""The modules that a program may import: facades that list their names, never the modules themselves.

A raw stdlib module hands out `sys` (`statistics.sys`, `json.codecs`, `re.enum.sys`). What depends on the clock, on
chance or on threads is the guest's own, so that a run can be replayed.
"""

from __future__ import annotations

import datetime
import importlib
import json
import logging
import random
import sys
import time
import traceback
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolchord_guest import asynchrony, guards, stdlib, threads
from toolchord_guest.calls import PendingCall, settled
from toolchord_guest.hub import Hub

hub: Hub = None  # type: ignore[assignment]
"""Set by the worker."""

_WHOLE = (
    "abc array base64 binascii bisect calendar cmath collections collections.abc colorsys contextlib copy csv "
    "dataclasses datetime decimal difflib enum fnmatch fractions functools graphlib hashlib heapq hmac html ipaddress "
    "itertools json keyword math numbers operator pprint re shlex statistics struct textwrap typing unicodedata "
    "urllib.parse weakref zlib"
).split()
"""Offered with all their public names, modules and the names below excepted."""

_LESS = {
    "typing": {"get_type_hints", "ForwardRef"},
    "contextlib": {"chdir"},
    "enum": {"global_enum"},
    "hashlib": {"file_digest"},
    "weakref": {"finalize"},
}

_ONLY = {
    "ast": ("literal_eval",),
    "http": ("HTTPStatus",),
    "io": ("StringIO", "BytesIO"),
    "pathlib": ("PurePath", "PurePosixPath", "PureWindowsPath"),
    "string": (
        "ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable punctuation "
        "whitespace Template"
    ).split(),
    "tomllib": ("loads", "TOMLDecodeError"),
    "types": (
        "SimpleNamespace",
        "MappingProxyType",
        "NoneType",
        "GenericAlias",
        "UnionType",
        "new_class",
        "MethodType",
    ),
    "warnings": ("warn", "simplefilter", "filterwarnings"),
    "pydantic": (
        "BaseModel Field ConfigDict ValidationError field_validator model_validator computed_field field_serializer "
        "EmailStr PositiveInt NonNegativeInt PositiveFloat conint confloat constr AliasChoices PrivateAttr"
    ).split(),
    "typing_extensions": ("TypedDict", "NotRequired", "Required", "Annotated", "Literal", "Self", "override"),
}


class Facade:
    """A module as a program sees it: read-only, with the names it lists."""

    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        self.__dict__.update(names)
        self.__dict__["__name__"] = name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module {self.__dict__['__name__']!r} has no attribute {name!r} here")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"module {self.__dict__['__name__']!r} is read-only")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"module {self.__dict__['__name__']!r} is read-only")

    def __dir__(self) -> list[str]:
        return sorted(name for name in self.__dict__ if not name.startswith("__"))

    def __repr__(self) -> str:
        return f"<module {self.__dict__['__name__']!r}>"


def build() -> dict[str, Facade]:
    """All facades by name."""
    found: dict[str, dict[str, Any]] = {}
    for name in _WHOLE:
        module = importlib.import_module(name)
        public = getattr(module, "__all__", None) or [n for n in dir(module) if not n.startswith("_")]
        less = _LESS.get(name, set())
        found[name] = {
            n: getattr(module, n)
            for n in public
            if n not in less and hasattr(module, n) and not isinstance(getattr(module, n), types.ModuleType)
        }
    for name, names in _ONLY.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        found[name] = {n: getattr(module, n) for n in names if _has(module, n)}
    for name, names_of in _OWN.items():
        found.setdefault(name, {}).update(names_of())
    for parent in ("collections", "urllib", "concurrent"):
        found.setdefault(parent, {})
    facades = {name: Facade(name, names) for name, names in found.items()}
    for name, facade in facades.items():
        parent, _, child = name.rpartition(".")
        if parent:
            facades[parent].__dict__[child] = facade
    return facades


def _has(module: Any, name: str) -> bool:
    try:
        return hasattr(module, name)
    except ImportError:  # pydantic looks some names up lazily
        return False


# chance


class Random(random.Random):
    """random.Random that is seeded by the run when it is given no seed."""

    def __init__(self, x: Any = None) -> None:
        super().__init__(random.getrandbits(64) if x is None else x)

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(random.getrandbits(64) if a is None else a, version)


def _random() -> dict[str, Any]:
    names = {n: getattr(random, n) for n in random.__all__}
    return names | {"Random": Random, "SystemRandom": Random, "seed": _seed}


def _seed(a: Any = None, version: int = 2) -> None:
    """random.seed; without a seed the run's own sequence goes on."""
    random.seed(random.getrandbits(64) if a is None else a, version)


def _uuid() -> dict[str, Any]:
    def uuid1(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
        return uuid.UUID(int=_bits.getrandbits(128), version=1)

    names = {
        n: getattr(uuid, n) for n in dir(uuid) if n.isupper() or n.startswith(("UUID", "NAMESPACE", "uuid", "Safe"))
    }
    return names | {
        "uuid1": uuid1,
        "uuid4": lambda: uuid.UUID(int=_bits.getrandbits(128), version=4),
    }


_bits = random.Random(0)


def seed(run_seed: int) -> None:
    """Start the run's chance: `random` and `uuid`, each from its own sequence."""
    random.seed(run_seed)
    _bits.seed(run_seed ^ 0x5EED)


# time


def now() -> float:
    """Seconds since 1970, by the run's clock."""
    return hub.clock.epoch + hub.clock.read()


def _time() -> dict[str, Any]:
    names = {n: getattr(time, n) for n in dir(time) if not n.startswith(("_", "pthread", "clock_", "tz", "CLOCK"))}
    elapsed: Callable[[], float] = lambda: hub.clock.read()  # noqa: E731
    return names | {
        "time": now,
        "time_ns": lambda: int(now() * 1e9),
        "monotonic": elapsed,
        "monotonic_ns": lambda: int(elapsed() * 1e9),
        "perf_counter": elapsed,
        "perf_counter_ns": lambda: int(elapsed() * 1e9),
        "process_time": elapsed,
        "process_time_ns": lambda: int(elapsed() * 1e9),
        "thread_time": elapsed,
        "thread_time_ns": lambda: int(elapsed() * 1e9),
        "sleep": threads.sleep,
        "gmtime": lambda secs=None: time.gmtime(now() if secs is None else secs),
        "localtime": lambda secs=None: time.localtime(now() if secs is None else secs),
        "ctime": lambda secs=None: time.ctime(now() if secs is None else secs),
        "asctime": lambda t=None: time.asctime(time.localtime(now()) if t is None else t),
        "strftime": lambda fmt, t=None: time.strftime(fmt, time.localtime(now()) if t is None else t),
    }


def clock_method(owner: Any, name: str) -> Any:
    """`owner.now`, `.today` or `.utcnow`: of dates and times by the guest's clock, else the attribute itself."""
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        if name == "today":
            return lambda: owner.fromtimestamp(now())
        if issubclass(owner, datetime.datetime):
            if name == "now":
                return lambda tz=None: owner.fromtimestamp(now(), tz)
            return lambda: owner.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)
    return getattr(owner, name)


guards.State.clock_method = staticmethod(clock_method)

_zones: list[zoneinfo.ZoneInfo] = []


def load_zones() -> None:
    """Read every time zone once: a guest can open no files."""
    for key in sorted(_zone_keys() or zoneinfo.available_timezones()):
        try:
            _zones.append(zoneinfo.ZoneInfo(key))
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            continue  # a file beside the zones that is none


def _zone_keys() -> list[str]:
    """The names of the system's zone files; `available_timezones` would open each of them to look."""
    root = next((Path(folder) for folder in zoneinfo.TZPATH if Path(folder, "UTC").exists()), None)
    if root is None:
        return []
    names = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return [n for n in names if n[0].isupper() and "." not in n]


def _zoneinfo() -> dict[str, Any]:
    names = frozenset(zone.key for zone in _zones)
    return {
        "ZoneInfo": zoneinfo.ZoneInfo,
        "ZoneInfoNotFoundError": zoneinfo.ZoneInfoNotFoundError,
        "available_timezones": lambda: set(names),
    }


# threads


def _futures() -> dict[str, Any]:
    import concurrent.futures as real

    return {
        "ThreadPoolExecutor": threads.ThreadPoolExecutor,
        "Future": threads.Future,
        "Executor": real.Executor,
        "as_completed": threads.as_completed,
        "wait": threads.wait,
        "TimeoutError": TimeoutError,
        "CancelledError": real.CancelledError,
        "ALL_COMPLETED": real.ALL_COMPLETED,
        "FIRST_COMPLETED": real.FIRST_COMPLETED,
        "FIRST_EXCEPTION": real.FIRST_EXCEPTION,
    }


def _threading() -> dict[str, Any]:
    names = ["Thread", "Lock", "RLock", "Semaphore", "Event"]
    return {n: getattr(threads, n) for n in names} | {"BoundedSemaphore": threads.Semaphore}


def _queue() -> dict[str, Any]:
    return {n: getattr(threads, n) for n in ("Queue", "Empty", "Full")} | {"SimpleQueue": threads.Queue}


# text


def _logging() -> dict[str, Any]:
    names = (
        "DEBUG INFO WARNING WARN ERROR CRITICAL FATAL NOTSET getLogger getLevelName Formatter StreamHandler NullHandler"
    )
    names += " debug info warning error exception critical log basicConfig disable Logger LoggerAdapter Filter"
    return {n: getattr(logging, n) for n in names.split()}


def _json() -> dict[str, Any]:
    def with_calls(default: Any, options: dict[str, Any]) -> Any:
        """A `default` that knows the values of started calls."""
        if options.get("cls") is not None:
            return default

        def known(value: Any) -> Any:
            if type(value) is PendingCall:
                return settled(value)
            if default is None:
                raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
            return default(value)

        return known

    return {
        "dumps": lambda obj, *, default=None, **options: json.dumps(
            obj, default=with_calls(default, options), **options
        ),
        "dump": lambda obj, fp, *, default=None, **options: json.dump(
            obj, fp, default=with_calls(default, options), **options
        ),
    }


def _operator() -> dict[str, Any]:
    return {"attrgetter": guards.attrgetter, "methodcaller": guards.methodcaller}


def _traceback() -> dict[str, Any]:
    def format_exc(limit: int | None = None, chain: bool = True) -> str:
        return guards.format_error(sys.exc_info()[1])

    def format_exception(error: Any, value: Any = None, tb: Any = None, **options: Any) -> list[str]:
        return guards.format_error(error if isinstance(error, BaseException) else value).splitlines(keepends=True)

    def print_exception(error: Any, value: Any = None, tb: Any = None, *args: Any, file: Any = None, **_: Any) -> None:
        print("".join(format_exception(error, value)), end="", file=file or sys.stderr)

    return {
        "print_exception": print_exception,
        "format_exc": format_exc,
        "format_exception": format_exception,
        "format_exception_only": traceback.format_exception_only,
        "print_exc": lambda limit=None, file=None, chain=True: print(format_exc(), file=file or sys.stderr),
    }


_OWN: dict[str, Callable[[], dict[str, Any]]] = {
    "asyncio": lambda: asynchrony.names(hub),
    "concurrent.futures": _futures,
    "json": _json,
    "logging": _logging,
    "operator": _operator,
    "queue": _queue,
    "random": _random,
    "string": lambda: {"Formatter": stdlib.Formatter},
    "contextlib": lambda: {n: getattr(stdlib, n) for n in ("redirect_stdout", "redirect_stderr")},
    "functools": lambda: {n: getattr(stdlib, n) for n in ("update_wrapper", "wraps")},
    "threading": _threading,
    "time": _time,
    "traceback": _traceback,
    "uuid": _uuid,
    "zoneinfo": _zoneinfo,
}

INTERNAL = frozenset({"_strptime", "_struct", "encodings.idna", "_datetime", "_decimal", "unicodedata"})
"""Imported by C code on behalf of a function the program may call; no source can name them."""
