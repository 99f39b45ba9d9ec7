"""Owns sessions that last: the variables of programs, signed and kept in a store under a key of the host's.

Each program that changes something leaves a generation: a row that is written once, so that of two programs that went
on from the same one only the first is kept. The row is signed together with the variables, the generation and the row
before it, with a secret of the session's own; what was altered, or put under another key, is not read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from toolchord.errors import ConfigurationError, JournalUnreadable, SessionUnreadable, SessionUnwritten
from toolchord.journal import Journal
from toolchord.limits import Limits
from toolchord.policy import Policy
from toolchord.results import ExecutionResult, Watch
from toolchord.rows import JournalStore, Rows
from toolchord.sandbox import CodeSandbox, Tools
from toolchord.variables import Variables

__all__ = ["LastingSessions"]

Secret = str | bytes | Sequence[str | bytes]

_GENERATION = re.compile(r"generation/([1-9]\d{0,15})/([0-9a-f]+)")
_SHORTEST = 16
_LONGEST_KEY = 1000
_REMEMBERED = 10_000
"""Sessions whose newest generation this process remembers."""

_TRIES = 20

_FORGOTTEN = "forgotten"


class _Row(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A generation.

    Attributes:
        birth: of the session; another one after it was forgotten.
        at: when it was left, in seconds since 1970.
        place: names where its variables are.
        signature: of all that and of the variables.
    """

    birth: bytes
    at: float
    place: str
    signature: bytes


@dataclass(frozen=True)
class _Found:
    """What a program goes on from."""

    chain: list[_Row] = field(default_factory=list)
    variables: Variables = field(default_factory=Variables)
    current: bool = True
    """Signed with the first secret."""


class LastingSessions:
    """Programs that share their variables with earlier ones of the same key, whatever process those ran in.

    Data comes back as it was; functions, classes and imports are defined again. What can't be kept is named in
    `ExecutionResult.for_model`. Programs of one key take turns in this process. If one of another process has left
    something meanwhile, what this one leaves is not kept, and its result says so.

    Args:
        sandbox: where programs run.
        store: where variables are kept; any `JournalStore`. Wrap it in a `SealedStore` to encrypt them too.
        secret: signs what is kept: at least 16 bytes that nobody else knows. Of several the first signs; what another
            one has signed is still read, and signed anew by the next program.
        expires: seconds after a session's last program at which its variables are dropped; None for never.

    Raises:
        ConfigurationError: arguments that make no sense.

    Example:
        sessions = LastingSessions(sandbox, SQLiteStore("sessions.db"), secret=os.environ["SESSION_SECRET"])
        await sessions.execute("ann", "rows = fetch()")
        await sessions.execute("ann", "return len(rows)")  # tomorrow, in another process
    """

    def __init__(
        self, sandbox: CodeSandbox, store: JournalStore, *, secret: Secret, expires: float | None = None
    ) -> None:
        if not isinstance(sandbox, CodeSandbox):
            raise ConfigurationError(f"LastingSessions takes a CodeSandbox first, not {type(sandbox).__name__}")
        number = isinstance(expires, int | float) and not isinstance(expires, bool)
        if expires is not None and not (number and 0 < expires < float("inf")):
            raise ConfigurationError(f"expires must be a positive number of seconds, not {expires!r}")
        self._sandbox = sandbox
        self._store = store
        self._secrets = _secrets(secret)
        self._expires = expires
        self._seen: OrderedDict[str, tuple[bytes, int]] = OrderedDict()
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, asyncio.Lock]]
        self._turns = WeakKeyDictionary()

    async def execute(
        self,
        key: str,
        code: str,
        tools: Tools = None,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        journal: Journal | None = None,
        watch: Watch | None = None,
        policy: Policy | None = None,
        caller: str = "sandbox",
    ) -> ExecutionResult:
        """Run the next program of a session; see `CodeSandbox.execute` for all but `key`.

        A program that is cut off, or pauses, changes nothing. `Limits.variables` bounds what is kept.

        Args:
            key: which session; text of at most 1,000 characters, such as a user and a conversation. Whoever chooses it
                chooses whose variables these are.

        Raises:
            SessionUnreadable: what was kept was altered, is older than what this process has seen, or was signed with
                another secret. The program did not run.
            SessionUnwritten: the store failed after the program had run; its result is in the error.
        """
        run = _run_of(key)
        async with self._turn(key):
            try:
                found, expired = await self._found(key, run)
            except BaseException:
                if journal is not None:
                    await journal.end()
                raise
            result = await self._sandbox.execute(
                code,
                tools,
                inputs,
                limits,
                journal=journal,
                watch=watch,
                policy=policy,
                caller=caller,
                variables=found.variables,
            )
            try:
                await self._leave(key, run, found, result)
            except Exception as error:
                raise SessionUnwritten(key, result, error) from error
            if expired and result.variables is not None:
                gone = {name: why for name, why in expired.items() if name not in result.variables.names}
                result.variables = replace(result.variables, lost={**gone, **result.variables.lost})
        return result

    async def variables(self, key: str) -> Variables:
        """What the next program of a session finds; see `execute` for what it raises."""
        found, _ = await self._found(key, _run_of(key))
        return found.variables

    async def forget(self, key: str) -> None:
        """Delete all that is kept of a session; a program that is under way leaves nothing more to it."""
        run = _run_of(key)
        async with self._turn(key):
            self._seen.pop(key, None)
            try:
                rows = await self._store.load(run)
            except JournalUnreadable:  # sealed rows that were altered: nobody can tell where the variables are
                return await self._store.delete(run)
            if rows:
                await self._store.put(run, _FORGOTTEN, b"")
                await self._erase(run, rows)

    def _turn(self, key: str) -> asyncio.Lock:
        """Held while a program of this session runs on this event loop."""
        locks = self._turns.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        return locks.setdefault(key, asyncio.Lock())

    # reading

    async def _found(self, key: str, run: str) -> tuple[_Found, dict[str, str]]:
        """What a program goes on from, and what has expired: names and reasons."""
        found = await self._read(key, run)
        if self._expires is None or not found.chain or found.chain[-1].at + self._expires > time.time():
            return found, {}
        reason = f"kept for {self._expires:g} s at most, and they are over"
        return replace(found, variables=Variables()), dict.fromkeys(found.variables.names, reason)

    async def _read(self, key: str, run: str) -> _Found:
        try:
            for _ in range(_TRIES):
                seen = self._seen.get(key)  # by now: who writes meanwhile makes this one no older
                rows = await self._store.load(run)
                if _FORGOTTEN in rows:  # somebody who was forgetting it did not come to an end
                    await self._erase(run, rows)
                    continue
                chain = _chain(key, rows)
                if not chain:
                    return _Found()
                stored = await Rows(self._store, f"{run}/{chain[-1].place}").load()
                if "variables" in stored:
                    return self._verified(key, chain, stored["variables"], seen)
                if (await self._store.load(run)).keys() == rows.keys():
                    raise SessionUnreadable(key, "its variables are missing")
        except JournalUnreadable as error:
            raise SessionUnreadable(key, "its rows are not what was written") from error
        raise SessionUnreadable(key, "it changes faster than it can be read")

    def _verified(self, key: str, chain: list[_Row], data: bytes, seen: tuple[bytes, int] | None) -> _Found:
        row, generation = chain[-1], len(chain)
        signatures = (_signature(secret, key, chain[:-1], row, data) for secret in self._secrets)
        fits = [hmac.compare_digest(row.signature, signature) for signature in signatures]
        if not any(fits):
            raise SessionUnreadable(key, "its signature does not fit")
        birth, newest = seen or (row.birth, 0)
        if birth == row.birth and generation < newest:
            raise SessionUnreadable(key, f"it is at generation {generation}, and was at {newest} before")
        self._remember(key, row.birth, generation)
        return _Found(chain, Variables.from_bytes(data), fits[0])

    def _remember(self, key: str, birth: bytes, generation: int) -> None:
        known, newest = self._seen.get(key, (birth, 0))
        self._seen[key] = birth, max(generation, newest) if known == birth else generation
        self._seen.move_to_end(key)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    # writing

    async def _leave(self, key: str, run: str, found: _Found, result: ExecutionResult) -> None:
        """Keep what a program leaves, unless another one was faster."""
        left = result.variables = result.variables or found.variables
        data = left.to_bytes()
        same = data == found.variables.to_bytes()
        if same and (not found.chain or (found.current and self._expires is None)):
            return
        if not await self._written(key, run, found, data):
            reason = "another program of this session ended while this one ran; what it left counts"
            lost = dict.fromkeys(_changed(found.variables, left), reason)
            theirs = await self._read(key, run)
            result.variables = replace(theirs.variables, lost={**left.lost, **lost})

    async def _written(self, key: str, run: str, found: _Found, data: bytes) -> bool:
        """Write the next generation; whether it is the one that counts."""
        number, place = len(found.chain) + 1, os.urandom(12).hex()
        row = _Row(found.chain[-1].birth if found.chain else os.urandom(12), time.time(), place, b"")
        signature = _signature(self._secrets[0], key, found.chain, row, data)
        row = msgspec.structs.replace(row, signature=signature)
        # Who is cut off here leaves variables that nobody reads; the row tells where, so that they are deleted.
        trying = f"try/{number}/{place}"
        await self._store.put(run, trying, b"")
        await Rows(self._store, f"{run}/{place}").put("variables", data)
        name = f"generation/{number}/{_link(found.chain)}"
        won = await self._store.put(run, name, msgspec.msgpack.encode(row))
        rows = await self._store.load(run)
        forgotten, chain = trying not in rows, _linked(_generations(key, rows))
        if not won or forgotten or row not in chain:
            await self._store.delete(f"{run}/{place}")
            if won and (not chain or (forgotten and chain == [row])):
                await self._store.delete(run)
            return False
        for name in rows:  # whoever came before may have been cut off before it did this
            if name.startswith((f"try/{number - 1}/", f"try/{number - 2}/")):
                await self._store.delete(f"{run}/{name.rpartition('/')[2]}")
        self._remember(key, row.birth, number)
        return True

    async def _erase(self, run: str, rows: Mapping[str, bytes]) -> None:
        for name in rows:
            if name.startswith("try/"):
                await self._store.delete(f"{run}/{name.rpartition('/')[2]}")
        await self._store.delete(run)


def _secrets(secret: Secret) -> list[bytes]:
    given = [secret] if isinstance(secret, str | bytes) else list(secret)
    if not given:
        raise ConfigurationError("secret must hold at least one; make one with secrets.token_bytes(32)")
    secrets = []
    for one in given:
        if not isinstance(one, str | bytes):
            raise ConfigurationError(f"a secret is bytes or text, not {type(one).__name__}")
        data = one.encode() if isinstance(one, str) else one
        if len(data) < _SHORTEST:
            raise ConfigurationError(
                f"a secret of {len(data)} bytes is too short; make one with secrets.token_bytes(32)"
            )
        secrets.append(data)
    return secrets


def _run_of(key: str) -> str:
    """The name of a session's rows in the store: no user's text, and no name of a run."""
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
        raise ConfigurationError(f"a session's key is text of 1 to {_LONGEST_KEY:,} characters, not {key!r:.80}")
    return f"session/{hashlib.sha256(_bytes(key)).hexdigest()}"


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _generations(key: str, rows: Mapping[str, bytes]) -> dict[tuple[int, str], _Row]:
    found: dict[tuple[int, str], _Row] = {}
    for name, data in rows.items():
        if place := _GENERATION.fullmatch(name):
            try:
                found[int(place[1]), place[2]] = msgspec.msgpack.decode(data, type=_Row)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise SessionUnreadable(key, f"a row of it is none ({error})") from None
    return found


def _linked(found: Mapping[tuple[int, str], _Row]) -> list[_Row]:
    """The generations in order, each of which names the one before."""
    chain: list[_Row] = []
    while (row := found.get((len(chain) + 1, _link(chain)))) is not None:
        chain.append(row)
    return chain


def _chain(key: str, rows: Mapping[str, bytes]) -> list[_Row]:
    """A session's generations; what a program wrote that did not know that it was forgotten belongs to none."""
    found = _generations(key, rows)
    chain = _linked(found)
    if any(not chain or (row.birth == chain[-1].birth and place[0] > len(chain)) for place, row in found.items()):
        raise SessionUnreadable(key, "rows of it are missing")
    return chain


def _link(chain: Sequence[_Row]) -> str:
    return chain[-1].signature[:8].hex() if chain else "0"


def _signature(secret: bytes, key: str, before: Sequence[_Row], row: _Row, data: bytes) -> bytes:
    own = hmac.digest(secret, b"toolchord session 1\0" + _bytes(key), "sha256")
    last = before[-1].signature if before else b""
    signed = [len(before) + 1, row.birth, row.at, row.place, last, hashlib.sha256(data).digest()]
    return hmac.digest(own, msgspec.msgpack.encode(signed), "sha256")


def _changed(before: Variables, after: Variables) -> list[str]:
    """Names whose variables are not what they were."""
    was, now = ({**one.data, **one.definitions} for one in (before, after))
    return [name for name in {**was, **now} if was.get(name) != now.get(name)]
