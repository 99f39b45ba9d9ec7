"""The private names of langgraph that this adapter needs, checked when it is imported.

langgraph numbers the sub-tasks of a task by the order in which they are made, which a retry or a faster sibling
changes; a sub-task here has a number of its own instead. Read against langgraph 1.2.22 to 1.2.24 and
langgraph-prebuilt 1.1.2 to 1.1.3.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config, var_child_runnable_config
from langgraph._internal import _constants as names
from langgraph.channels import EphemeralValue, LastValue, LastValueAfterFinish, UntrackedValue
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import ParentCommand
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from toolchord.errors import ConfigurationError

_CONSTANTS = (
    "CONF CONFIG_KEY_CALL CONFIG_KEY_CHECKPOINTER CONFIG_KEY_CHECKPOINT_NS CONFIG_KEY_DURABILITY CONFIG_KEY_READ "
    "CONFIG_KEY_SCRATCHPAD CONFIG_KEY_SEND RESUME"
)
_METHODS = "_run_one _arun_one _execute_tool_sync _execute_tool_async _parse_input _combine_tool_outputs"

_missing = [name for name in _CONSTANTS.split() if not hasattr(names, name)]
_missing += [name for name in _METHODS.split() if not hasattr(ToolNode, name)]
_missing += [] if hasattr(Command, "_update_as_tuples") else ["Command._update_as_tuples"]
if _missing:
    raise ConfigurationError(
        f"langgraph {version('langgraph')} has no {', '.join(_missing)}, which inner calls are carried by; "
        f"use another version (1.2 is known to work), or a newer toolchord"
    )

Writes = Sequence[tuple[str, Any]]


class Location(NamedTuple):
    """Where a task's own writes are kept.

    Attributes:
        saver: the checkpointer.
        config: names the checkpoint that the task belongs to.
        durable: whether that checkpoint is written while the graph runs, not only when it ends.
    """

    saver: BaseCheckpointSaver[Any]
    config: RunnableConfig
    durable: bool


def location(config: RunnableConfig, checkpoint_id: str | None) -> Location | None:
    """Where the task with this config is checkpointed; None without a checkpointer."""
    conf = config.get("configurable", {})
    saver = conf.get(names.CONFIG_KEY_CHECKPOINTER)
    if not isinstance(saver, BaseCheckpointSaver) or checkpoint_id is None or "thread_id" not in conf:
        return None
    if getattr(_loop(config), "checkpointer", True) is None:  # a graph within another one need not have one
        return None
    # A task's namespace is below its graph's; the graph is the outermost whose checkpoint this is.
    graphs = [ns for ns, known in conf.get("checkpoint_map", {}).items() if known == checkpoint_id]
    if not graphs:
        return None
    where = {"thread_id": conf["thread_id"], "checkpoint_ns": min(graphs, key=len), "checkpoint_id": checkpoint_id}
    return Location(saver, {"configurable": where}, conf.get(names.CONFIG_KEY_DURABILITY) != "exit")


def _loop(config: Any) -> Any:
    """What runs the graph of the task with this config; None where that is not known."""
    start = config["configurable"].get(names.CONFIG_KEY_CALL)
    return None if start is None else getattr(inspect.unwrap(_given(start)["schedule_task"]), "__self__", None)


def only_new_answers(config: RunnableConfig) -> RunnableConfig:
    """A task's config in which no question takes an answer that was given to another one.

    An answer without an interrupt's id stays in the checkpoint, and langgraph gives it to the next question that is
    asked when the thread is resumed without one.
    """
    loop = _loop(config)
    while getattr(loop, "is_nested", False):
        loop = _loop(loop.config)
    given = getattr(loop, "input", None)
    if loop is None or (isinstance(given, Command) and given.resume is not None):
        return config
    own = config["configurable"]
    scratchpad = dataclasses.replace(own[names.CONFIG_KEY_SCRATCHPAD], get_null_resume=_no_answer)
    return patch_config(config, configurable={**own, names.CONFIG_KEY_SCRATCHPAD: scratchpad})


def _no_answer(consume: bool = False) -> None:
    return None


def can_call(config: RunnableConfig) -> bool:
    """Whether this is a task of a graph, which can have sub-tasks."""
    return names.CONFIG_KEY_CALL in config.get("configurable", {})


def call(config: RunnableConfig, name: str, key: str, function: Callable[[], Any]) -> Any:
    """Run a function as a sub-task of the task that has this config.

    Args:
        config: the task's, as `get_config` gives it within it.
        name: what the sub-task is called in streams and traces.
        key: what the sub-task is, among those of the task: the same one has the same identity on every run.
        function: async in an async graph, else not.

    Returns:
        A future of the running event loop, or of a thread's.
    """
    if not can_call(config):  # outside of a graph, as in a unit test of the node
        if inspect.iscoroutinefunction(function):
            return asyncio.ensure_future(function())
        return _in_thread(function)
    start = config["configurable"][names.CONFIG_KEY_CALL]
    given = _given(start)
    schedule = given["schedule_task"]
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
    function.__name__ = function.__qualname__ = name

    @functools.wraps(schedule)
    def numbered(task: Any, counted: int, call: Any) -> Any:
        # Tasks that the function starts come this way too, and keep their numbers.
        return schedule(task, number if call.func is function else counted, call)

    return start(
        function,
        ((), {}),
        callbacks=config.get("callbacks"),
        schedule_task=numbered,
        # Beside langgraph's executor. That has places for so many tasks, and a task keeps its own while it waits for
        # its sub-tasks: they would wait for each other for ever.
        submit=lambda: _in_task if "loop" in given else _in_thread,
    )


def _given(start: Any) -> dict[str, Any]:
    """What langgraph starts sub-tasks with. A node with a timeout has a guard before it, which stops late ones."""
    while not isinstance(start, functools.partial):
        try:
            start = inspect.getclosurevars(start).nonlocals["call"]
        except (TypeError, KeyError):
            raise ConfigurationError(
                f"langgraph {version('langgraph')} starts sub-tasks in a way that is not known here; "
                f"use another version (1.2 is known to work), or a newer toolchord"
            ) from None
    return dict(start.keywords)


def _in_task(function: Callable[..., Any], *args: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(function(*args, **_for(options)))


def _in_thread(function: Callable[..., Any], *args: Any, **options: Any) -> concurrent.futures.Future[Any]:
    future = _Abandonable()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            value = context.run(function, *args, **_for(options))
        except BaseException as error:
            future.end(future.set_exception, error)
        else:
            future.end(future.set_result, value)

    threading.Thread(target=run, name="toolchord-call", daemon=True).start()
    return future


def _for(options: dict[str, Any]) -> dict[str, Any]:
    """Options that are the function's, not the executor's."""
    return {name: value for name, value in options.items() if not name.startswith("__")}


class _Abandonable(concurrent.futures.Future[Any]):
    """A future of something that runs, and may be given up: nobody waits for it then, and it is left to its end."""

    def cancel(self) -> bool:
        if self.cancelled():
            return True
        return super().cancel() and not self.set_running_or_notify_cancel()

    def end(self, settle: Callable[[Any], None], what: Any) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            settle(what)


@contextlib.contextmanager
def as_child(config: RunnableConfig) -> Iterator[None]:
    """`get_config` gives this config inside."""
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


async def result(future: Any) -> Any:
    """What a sub-task gives."""
    return await (asyncio.wrap_future(future) if isinstance(future, concurrent.futures.Future) else future)


def sends(config: RunnableConfig, writes: Writes) -> None:
    """Write to the state on behalf of the task that has this config."""
    if writes:
        config["configurable"][names.CONFIG_KEY_SEND](writes)


def handed_over(error: ParentCommand, config: RunnableConfig) -> Command[Any]:
    """The command of a graph that a tool ran, which is meant for the graph of the task with this config."""
    command: Command[Any] = error.args[0]
    mine = config["configurable"].get(names.CONFIG_KEY_CHECKPOINT_NS)
    return dataclasses.replace(command, graph=None) if command.graph == mine else command


def hand_over(command: Command[Any], config: RunnableConfig) -> ParentCommand:
    """What ends the task with this config by a command, as a graph that it ran itself would."""
    mine = config["configurable"].get(names.CONFIG_KEY_CHECKPOINT_NS)
    return ParentCommand(command if command.graph else dataclasses.replace(command, graph=mine))


def updates(command: Command[Any]) -> Writes:
    """What a command writes to the state, by channel."""
    return list(command._update_as_tuples())


def reading(config: RunnableConfig, writes: Callable[[], Writes]) -> Any:
    """How the task with this config reads the state, with writes that it will make when it ends, one after another."""
    read = config["configurable"][names.CONFIG_KEY_READ]

    def with_writes(place: Any, channels: Any, managed: Any, task: Any, select: Any, fresh: bool = False) -> Any:
        values = read.func(place, channels, managed, task, select, fresh)
        mine = [write for write in writes() if write[0] in channels] if fresh else []
        for name in {name for name, _ in mine}.intersection([select] if isinstance(select, str) else select):
            channel = channels[name].copy()
            if own := [value for written, value in task.writes if written == name]:
                channel.update(own)
            for _, value in (write for write in mine if write[0] == name):
                channel.update([value])
            if isinstance(select, str):
                return channel.get()
            values[name] = channel.get()
        return values

    return functools.partial(with_writes, *read.args)


def settled(config: RunnableConfig, writes: Writes) -> Writes:
    """Writes that were made one after another, as a task may make them at once: of some channels only the last."""
    channels = config["configurable"][names.CONFIG_KEY_READ].args[1]
    last = {name: place for place, (name, _) in enumerate(writes) if isinstance(channels.get(name), _TAKE_ONE)}
    return [write for place, write in enumerate(writes) if last.get(write[0], place) == place]


_TAKE_ONE = (LastValue, LastValueAfterFinish, EphemeralValue, UntrackedValue)
"""Channels that take one value in a step."""


def current_state(read: Any, state: Any, writes: Writes) -> Any:
    """A task's state as it is after these writes; as it was where it is no state of a graph's channels."""
    kind: Any = type(state)
    keys = list(getattr(kind, "model_fields", ()))
    if isinstance(state, dict):
        keys = list({**state, **{name: None for name, _ in writes if name in read.args[1]}})
    if dataclasses.is_dataclass(state):
        keys = [one.name for one in dataclasses.fields(state) if one.init]
    try:
        values = read(keys, True)
    except KeyError:  # something else than the graph's own state was given to the node
        return state
    if isinstance(state, dict):
        return {**state, **values}
    if dataclasses.is_dataclass(kind):
        return dataclasses.replace(state, **values)
    return state.model_copy(update=values) if keys else state


def bridged(
    config: RunnableConfig, parent: RunnableConfig, keep: Callable[[Writes], None], read: Any = None
) -> RunnableConfig:
    """A sub-task's config with which a tool reads and writes the state as part of the parent task.

    Args:
        config: the sub-task's.
        parent: the parent task's.
        keep: is given the writes, for they are not among the sub-task's own.
        read: how the state is read, where the parent task does not make the writes at once; see `reading`.
    """
    if not can_call(parent):
        return config
    own, outer = config["configurable"][names.CONFIG_KEY_SEND], parent["configurable"][names.CONFIG_KEY_SEND]

    def send(writes: Writes) -> None:
        if answers := [write for write in writes if write[0] == names.RESUME]:
            own(answers)  # they belong to the one who asked
        if others := [write for write in writes if write[0] != names.RESUME]:
            keep(others)
            if read is None:
                outer(others)

    patch = {names.CONFIG_KEY_SEND: send, names.CONFIG_KEY_READ: read or parent["configurable"][names.CONFIG_KEY_READ]}
    return patch_config(config, configurable={**config["configurable"], **patch})
