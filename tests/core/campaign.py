"""The fault campaign: generated programs, killed at random points, resumed in fresh processes, beside a ledger outside.

    make campaign ARGS="--seeds 500"

For each seed a program is generated and run against a store. Its process is killed with SIGKILL again and again: at a
random point of its own (around a write to the store, around a tool's effect), or at a random time. A fresh process
takes the run up, sometimes two at once. Approvals and unclear calls are answered from here, through the store, a few at
a time and in any order. When the run has ended, the world's ledger must hold every effect exactly once, and the result
must be that of a run that nobody disturbed. Programs that depend on which call is faster are compared with their own
record.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchord import (
    Approvals,
    CodeSandbox,
    Decision,
    DurableJournal,
    ExecutionResult,
    Journal,
    JournalStore,
    Limits,
    Policy,
    RunRecord,
    SQLiteStore,
    ToolRegistry,
    Unclear,
    ask,
    create_registry,
    current_call,
)
from toolchord.errors import JournalConflict
from toolchord.postgres import PostgresStore
from toolchord.tools import Retry

LIMITS = Limits(wall_time=60.0, cpu_time=60.0)
POLICY = Policy(ask("sign", why="a signature binds"), otherwise="allow")


# the world outside


class World:
    """What tools change: a ledger in a file of its own, which no crash of ours takes back."""

    def __init__(self, path: Path, tick: Any = None) -> None:
        self._path = path
        self._tick = tick or (lambda: None)
        with self._open() as ledger:
            ledger.execute("CREATE TABLE IF NOT EXISTS effect (tool, k, key)")
            ledger.execute("CREATE TABLE IF NOT EXISTS keyed (tool, k, key PRIMARY KEY)")
            ledger.execute("CREATE TABLE IF NOT EXISTS tries (tool, key, n)")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        ledger = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        try:
            ledger.execute("PRAGMA synchronous = OFF")  # the machine does not crash, only processes do
            yield ledger
        finally:
            ledger.close()

    def act(self, tool: str, k: int, *, key: str | None = None) -> None:
        """An effect; with a key the world takes it once only, as a payment service does."""
        self._tick()
        call = current_call()
        with self._open() as ledger:
            if key is None:
                ledger.execute("INSERT INTO effect VALUES (?, ?, ?)", (tool, k, call.key if call else "?"))
            else:
                ledger.execute("INSERT OR IGNORE INTO keyed VALUES (?, ?, ?)", (tool, k, key))
        self._tick()

    def tried(self, tool: str, key: str) -> int:
        """How often a call was tried, this time included."""
        with self._open() as ledger:
            ledger.execute("INSERT INTO tries VALUES (?, ?, 1)", (tool, key))
            count = ledger.execute("SELECT count(*) FROM tries WHERE tool = ? AND key = ?", (tool, key)).fetchone()
        return int(count[0])

    def effects(self) -> list[tuple[str, int, str]]:
        """Every effect: tool, argument, key."""
        with self._open() as ledger:
            return ledger.execute("SELECT * FROM effect UNION ALL SELECT * FROM keyed").fetchall()


def tools(world: World, chance: random.Random) -> ToolRegistry:
    """The tools of a run."""
    registry = create_registry()

    async def dawdle() -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(chance.choice((0, 0, 0.002)))

    async def read(k: int) -> str:
        await dawdle()
        return f"read {k}"

    async def big(k: int) -> str:
        await dawdle()
        return f"{k:09}" * 40_000

    async def pay(k: int) -> str:
        await dawdle()
        world.act("pay", k)
        await dawdle()
        return f"paid {k}"

    async def sign(k: int) -> str:
        world.act("sign", k)
        return f"signed {k}"

    async def log(k: int) -> str:
        await dawdle()
        world.act("log", k)
        return f"logged {k}"

    def ship(k: int) -> str:
        world.act("ship", k)
        return f"shipped {k}"

    async def put(k: int, key: str) -> str:
        await dawdle()
        world.act("put", k, key=key)
        await dawdle()
        return f"put {k}"

    async def flaky(k: int, key: str) -> str:
        if world.tried("flaky", key) <= k % 3:
            raise ConnectionError("not now")
        world.act("flaky", k, key=key)
        return f"flaky {k}"

    async def refuse(k: int) -> str:
        world.act("refuse", k)
        raise ValueError(f"no {k}")

    for harmless in (read, big):
        registry.add(harmless, capabilities=["read_only"])
    for acting in (pay, sign, ship, refuse):
        registry.add(acting)
    registry.add(log, order="log")
    registry.add(put, capabilities=["idempotent"], idempotency_key="key")
    retry = Retry(attempts=4, wait=0.0)
    registry.add(flaky, capabilities=["idempotent"], idempotency_key="key", retry=retry, concurrency_limit=2)
    return registry


# programs


class Writer:
    """Writes a program for a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.racy = self.chance.random() < 0.25
        self._functions: list[str] = []
        self._k = 0

    def program(self) -> str:
        """The text; its value is what all calls gave."""
        main = self._function(0)
        head = "import asyncio, random, uuid\nfrom concurrent.futures import ThreadPoolExecutor\n"
        return head + "\n".join(self._functions) + f"\nreturn await {main}()\n"

    def _call(self) -> str:
        tool = self.chance.choice("read read big pay pay pay put put flaky sign sign log log ship".split())
        if self.chance.random() < 0.8:
            self._k += 1
        return f"{tool}({self._k})"  # now and then the same call again

    def _function(self, depth: int) -> str:
        lines: list[str] = []
        for _ in range(self.chance.randint(2, 3 if depth else 6)):
            lines += self._statement(depth)
        name = f"part{len(self._functions)}"
        body = "\n".join("    " + line for line in lines)
        self._functions.append(f"async def {name}():\n    out = []\n{body}\n    return out\n")
        return name

    def _many(self, depth: int) -> list[str]:
        def one() -> str:
            return f"{self._function(depth + 1)}()" if depth < 2 and self.chance.random() < 0.4 else self._call()

        return [one() for _ in range(self.chance.randint(2, 4))]

    def _statement(self, depth: int) -> list[str]:
        kinds = "call loop gather gather group pool caught completed sleep".split()
        if self.racy or not depth:  # who draws first depends on who is faster, where parts run together
            kinds.append("chance")
        if self.racy:
            kinds += ["race"] * 4
        match self.chance.choice(kinds):
            case "call":
                return [f"out.append(await {self._call()})"]
            case "loop":
                self._k += 10
                tool = self.chance.choice(["pay", "put", "sign", "log", "flaky"])
                return [
                    f"for n in range({self.chance.randint(1, 3)}):",
                    f"    out.append(await {tool}({self._k - 9} + n))",
                ]
            case "gather":
                return [f"out.append(await asyncio.gather({', '.join(self._many(depth))}))"]
            case "group":
                made = [f"    tasks.append(group.create_task({self._function(depth + 1)}()))" for _ in range(2)]
                return [
                    "tasks = []",
                    "async with asyncio.TaskGroup() as group:",
                    *made,
                    "out += [t.result() for t in tasks]",
                ]
            case "pool":
                self._k += 10
                tool = self.chance.choice(["ship", "put", "pay"])
                start = self._k - 9
                return [
                    "with ThreadPoolExecutor(3) as pool:",
                    f"    out += pool.map({tool}, range({start}, {start + 3}))",
                ]
            case "caught":
                self._k += 1
                said = "    out.append(str(error).split(': ')[-1])"  # a person who rejects says it in other words
                return ["try:", f"    await refuse({self._k})", "except (ValueError, PermissionError) as error:", said]
            case "completed":
                calls = ", ".join(self._call() for _ in range(3))
                return [
                    "got = []",
                    f"for one in asyncio.as_completed([{calls}]):",
                    "    got.append(await one)",
                    "out += sorted(got)",
                ]
            case "chance":
                return [
                    f"if random.random() < 0.5:\n        out.append(await {self._call()})",
                    "out.append(str(uuid.uuid4()))",
                ]
            case "race":
                self._k += 10
                start = self._k - 9
                return [
                    f"for one in asyncio.as_completed([read(n) for n in range({start}, {start + 3})]):",
                    "    n = int((await one).split()[1])",
                    f"    out.append(await {self.chance.choice(['pay', 'sign', 'put'])}(n))",
                    "    if random.random() < 0.5:",
                    "        break",
                ]
            case _:
                return [f"await asyncio.sleep({self.chance.choice((0, 0.001, 0.01))})"]


# one attempt, in a process of its own


class Fuse:
    """Kills this process when it has ticked so many times."""

    def __init__(self, ticks: int | None) -> None:
        self._left = ticks
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left -= 1
                if self._left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)


class Fused:
    """A store that ticks around every write."""

    def __init__(self, store: JournalStore, tick: Fuse) -> None:
        self._store = store
        self._tick = tick

    async def load(self, run: str) -> Mapping[str, bytes]:
        return await self._store.load(run)

    async def put(self, run: str, key: str, data: bytes, *, fence: int | None = None) -> bool:
        self._tick()
        written = await self._store.put(run, key, data, fence=fence)
        self._tick()
        return written

    async def delete(self, run: str) -> None:
        await self._store.delete(run)


@asynccontextmanager
async def opened(where: str) -> AsyncIterator[JournalStore]:
    """The store that a text names: a path, or a connection string."""
    async with SQLiteStore(where) if where.startswith("/") else PostgresStore(where) as store:
        yield store


def attempt(where: str, run: str, code: str, ledger: str, seed: int, ticks: int | None, told: str) -> None:
    """Go on with a run, and write down how far it came."""
    # What a killed process leaves on stderr is no news.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    fuse = Fuse(ticks)

    async def go() -> ExecutionResult:
        async with opened(where) as store:
            journal = await DurableJournal.open(Fused(store, fuse), run)
            registry = tools(World(Path(ledger), fuse), random.Random(seed))
            async with CodeSandbox(registry, limits=LIMITS, policy=POLICY) as sandbox:
                return await sandbox.execute(code, journal=journal)

    try:
        result = asyncio.run(go())
    except JournalConflict:
        said: dict[str, Any] = {"conflict": True}
    except BaseException as error:
        said = {"crash": repr(error)}
    else:
        said = {"paused": bool(result.pending), "value": repr(result.value), "error": str(result.error or "")}
        said["error"] += result.error.traceback if result.error else ""
        said["calls"] = sorted(
            f"{call.tool.removeprefix('default.')} {call.arguments.get('k')}" for call in result.calls
        )
        if result.ok and result.record is not None:
            said["record"] = result.record.to_json()
    Path(told).write_text(json.dumps(said))


# a seed


@dataclass
class Figures:
    """What a campaign counts."""

    seeds: int = 0
    calls: int = 0
    effects: int = 0
    attempts: int = 0
    kills: int = 0
    doubles: int = 0
    conflicts: int = 0
    approvals: int = 0
    unclear: int = 0
    took_effect: int = 0
    racy: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Add another one's counts."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        return (
            f"{self.seeds} programs ({self.racy} racy), {self.calls} calls, {self.effects} effects in the ledger\n"
            f"{self.attempts} attempts, {self.kills} kills, {self.doubles} pairs at once, {self.conflicts} fenced\n"
            f"{self.approvals} approvals, {self.unclear} unclear calls ({self.took_effect} had taken effect)\n"
            f"{len(self.wrong)} wrong" + "".join(f"\n  {one}" for one in self.wrong)
        )


class Seed:
    """One program from its first attempt to its result."""

    def __init__(self, seed: int, where: str, folder: Path, *, careless: bool = False) -> None:
        self.seed = seed
        self._careless = careless
        self.figures = Figures(seeds=1)
        self._where = where
        self._folder = folder
        self._run = f"run {seed}"
        self._ledger = folder / f"{seed}.ledger"
        self._chance = random.Random(seed * 7 + 1)
        writer = Writer(seed)
        self.code, self.racy = writer.program(), writer.racy
        self._context = multiprocessing.get_context("forkserver")

    def go(self) -> Figures:
        """Run it, disturb it, resume it, compare."""
        figures = self.figures
        figures.racy = int(self.racy)
        World(self._ledger)
        kills = self._chance.randint(1, 6)
        said: dict[str, Any] = {}
        for _ in range(200):
            figures.attempts += 1
            said = self._attempt(kills > figures.kills)
            if said.get("paused"):
                asyncio.run(self._answer())
            elif "record" in said or "crash" in said or said.get("error"):
                break
        problems = [said["crash"]] if "crash" in said else asyncio.run(self._problems(said))
        figures.wrong = [f"seed {self.seed} ({self._where[:20]}): {problem}" for problem in problems]
        for file in self._folder.glob(f"{self.seed}.*"):
            file.unlink()
        return figures

    def _attempt(self, kill: bool) -> dict[str, Any]:
        """One attempt, or two at once; what the one that came further says."""
        double = self.figures.attempts > 1 and self._chance.random() < 0.15
        self.figures.doubles += double
        started = [self._start(kill, number) for number in range(1 + double)]
        if kill and self._chance.random() < 0.25:
            started[0][0].join(self._chance.uniform(0.05, 0.6))
            started[0][0].kill()
        said: dict[str, Any] = {}
        for process, told in started:
            process.join(120)
            if process.exitcode is None:
                process.kill()
                said = {"crash": "an attempt hangs"}
            self.figures.kills += process.exitcode == -signal.SIGKILL
            if told.exists():
                one = json.loads(told.read_text())
                self.figures.conflicts += bool(one.get("conflict"))
                said = said if one.get("conflict") else one
        return said

    def _start(self, kill: bool, number: int) -> tuple[Any, Path]:
        told = self._folder / f"{self.seed}.told{number}"
        told.unlink(missing_ok=True)
        ticks = self._chance.randint(1, 60) if kill else None
        chance = self._chance.randrange(1 << 30)
        arguments = (self._where, self._run, self.code, str(self._ledger), chance, ticks, str(told))
        process = self._context.Process(target=attempt, args=arguments)
        process.start()
        return process, told

    async def _answer(self) -> None:
        """Answer some of what waits: approve, or say what became of an unclear call, as the ledger tells."""
        known = {key: (tool, k) for tool, k, key in World(self._ledger).effects()}
        async with opened(self._where) as store:
            desk = Approvals(store)
            waiting = await desk.pending(self._run)
            for request in self._chance.sample(waiting, self._chance.randint(1, len(waiting)) if waiting else 0):
                decision = Decision.approve()
                if isinstance(request, Unclear):
                    self.figures.unclear += 1
                    if request.key in known:
                        self.figures.took_effect += 1
                    if request.key in known and not self._careless:
                        decision = self._what_it_gave(*known[request.key])
                else:
                    self.figures.approvals += 1
                assert await desk.answer(self._run, request.id, decision)

    @staticmethod
    def _what_it_gave(tool: str, k: int) -> Decision:
        done = {"pay": "paid", "sign": "signed", "log": "logged", "ship": "shipped"}
        return Decision.reject(f"no {k}") if tool == "refuse" else Decision.respond(f"{done[tool]} {k}")

    async def _problems(self, said: dict[str, Any]) -> list[str]:
        """Everything that is not as it must be."""
        if "record" not in said:
            return [f"no result: {said}"]
        problems = []
        effects = World(self._ledger).effects()
        self.figures.effects = len(effects)
        self.figures.calls = len(said["calls"])
        if twice := [one for one, times in Counter(effects).items() if times > 1]:
            problems.append(f"more than once: {twice}")
        happened = Counter(f"{tool} {k}" for tool, k, _ in effects)
        made = Counter(one for one in said["calls"] if one.split()[0] not in ("read", "big"))
        if happened != made:
            problems.append(f"lost: {made - happened}, unasked: {happened - made}")
        record = RunRecord.from_json(said["record"])
        world = World(self._folder / f"{self.seed}.undisturbed")
        async with CodeSandbox(tools(world, random.Random(self.seed)), limits=LIMITS) as sandbox:
            if self.racy:
                calm = await sandbox.replay(record)
            else:
                calm = await sandbox.execute(self.code, journal=Journal(seed=record.seed, epoch=record.epoch))
                again = Counter(f"{tool} {k}" for tool, k, _ in world.effects())
                if again != happened:
                    problems.append(f"effects differ: {again - happened} {happened - again}")
        if repr(calm.value) != said["value"]:
            given, wanted = (re.sub(r"\d{99,}", "…", text) for text in (said["value"], repr(calm.value)))
            problems.append(f"another result: {given[:2000]} instead of {wanted[:2000]} ({calm.error})")
        return problems


def campaign(
    seeds: range, wheres: list[str], *, jobs: int = 2, progress: bool = False, careless: bool = False
) -> Figures:
    """Run seeds, in turn on each of the stores.

    Args:
        seeds: which.
        wheres: folders for SQLite files, or connection strings.
        jobs: seeds at a time.
        progress: say on stderr how far it is.
        careless: let every unclear call run again, without a look at the ledger; to see that this is noticed.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    total = Figures()
    folder = Path(tempfile.mkdtemp(prefix="tc-campaign-"))

    def one(number: int) -> Figures:
        where = wheres[number % len(wheres)]
        return Seed(number, f"{folder}/{number}.db" if where == "sqlite" else where, folder, careless=careless).go()

    began = time.monotonic()
    pool = ThreadPoolExecutor(jobs)
    try:
        for done, figures in enumerate(pool.map(one, seeds), 1):
            total.add(figures)
            if progress and (figures.wrong or not done % 20):
                said = f"{done} of {len(seeds)}, {time.monotonic() - began:.0f} s, {len(total.wrong)} wrong"
                print(said, *figures.wrong, sep="\n  ", file=sys.stderr, flush=True)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted campaign ends with the seeds that are under way
        shutil.rmtree(folder, ignore_errors=True)
    return total


def main() -> int:
    """The long form."""
    from tests.postgres import server as cluster

    parser = argparse.ArgumentParser(description="Kill runs at random points, resume them, count what happened.")
    parser.add_argument("--seeds", type=int, default=500, help="how many programs on each store")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    options = parser.parse_args()
    wrong = 0
    with cluster() as database:
        for name, where in (("SQLite", "sqlite"), ("PostgreSQL", database)):
            began = time.monotonic()
            seeds = range(options.first, options.first + options.seeds)
            figures = campaign(seeds, [where], jobs=options.jobs, progress=True)
            print(f"{name}: {time.monotonic() - began:.0f} s\n{figures}\n", flush=True)
            wrong += len(figures.wrong)
    return int(wrong > 0)
