"""Owns how runs show in a notebook: as what a cell gave, and live while they go on."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from toolchord.errors import ConfigurationError, MissingExtraError
from toolchord.results import shorten
from toolchord.timeline import fragment
from toolchord.timeline.layout import headline, visible
from toolchord.trace import LiveTrace, Trace

__all__ = ["bundle", "watching"]

EVERY = 0.2
"""Seconds between two looks at a run that goes on, at least."""
_SHARE = 4
"""Looking takes a fifth of the time at most."""
_ROOM = 60
_TEXT = 1000


def bundle(traces: Sequence[Trace], *, room: int = 200, answer: str = "") -> dict[str, str]:
    """Runs as a notebook shows them: MIME types and texts.

    Args:
        traces: one under another.
        room: calls whose details are shown, at most.
        answer: what a model said in the end.
    """
    texts = [answer] if answer else []
    for trace in traces:
        texts.append(headline(trace))
        said = str(trace.error) if trace.error is not None else trace.value
        texts += [said] if said else []
    shown = {"text/plain": visible("\n".join(shorten(text, _TEXT) for text in texts))}
    if traces:
        shown["text/html"] = fragment(traces, room=room)
    return shown


@contextmanager
def watching(code: str = "", *, count: Callable[[str], int] | None = None) -> Iterator[LiveTrace]:
    """Show a run below the cell while it goes on, at most five times a second, and then whole.

    Args:
        code: the program; "": it is told when the run begins.
        count: gives the number of tokens of a text, for the ledger; None: an estimate, four characters each.

    Example:
        with watching() as live:
            result = await sandbox.execute(program, watch=live)

    Raises:
        MissingExtraError: there is no IPython.
        ConfigurationError: this is no notebook.
    """
    show = _shower()
    live = LiveTrace(code, count=count)
    show(_look(live))
    ended = threading.Event()
    # A thread, so that it goes on while the cell itself waits; in the cell's context, so that it shows below that cell.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(_keep, live, show, ended), daemon=True)
    thread.start()
    try:
        yield live
    finally:
        ended.set()
        thread.join()
        show(bundle(live.traces))


def _keep(live: LiveTrace, show: Callable[[dict[str, str]], None], ended: threading.Event) -> None:
    pause = EVERY
    while not ended.wait(pause):
        if not live.done:
            began = time.monotonic()
            show(_look(live))
            pause = max(EVERY, _SHARE * (time.monotonic() - began))


def _look(live: LiveTrace) -> dict[str, str]:
    return bundle(live.traces, room=_ROOM)


def _shower() -> Callable[[dict[str, str]], None]:
    """A function that shows something below the cell, in place of what it showed before."""
    try:
        from IPython import get_ipython
        from IPython.display import display, update_display
    except ModuleNotFoundError:
        raise MissingExtraError("to watch a run in a notebook", "notebook") from None
    if not hasattr(get_ipython(), "kernel"):
        raise ConfigurationError("this is no notebook; in a terminal use toolchord.terminal.watching")
    shown: list[Any] = []

    def show(data: dict[str, str]) -> None:
        if shown:
            update_display(data, display_id=shown[0].display_id, raw=True)  # type: ignore[no-untyped-call]
        else:
            shown.append(display(data, raw=True, display_id=True))  # type: ignore[no-untyped-call]

    return show
