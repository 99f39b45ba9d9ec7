"""Ordinary programs give CPython's results: 43 programs and 142 probes, each alone and all in one session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.core.corpus import EXPECTED, POLICY, PROBES, PROGRAMS, TOOLS, cpython, normalised, tools_fixture
from toolchord import CodeSandbox, ExecutionResult, Session

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=TOOLS) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(sandbox: CodeSandbox) -> AsyncIterator[Session]:
    async with sandbox.session() as session:
        yield session


Note = Callable[[str, str], None]


def judge(note: Note, suite: str, result: ExecutionResult, expected: tuple[str, Any], *, policy: bool = False) -> None:
    """Note the verdict, and fail unless the result is right (or, for a probe of the policy, loudly refused)."""
    kind, value = expected
    if policy:
        said = "refused" if result.error is not None and result.error.kind == "refused" else "not refused"
    elif kind == "error":
        said = "right" if result.error is not None and result.error.type == value else "no error"
    elif result.error is not None:
        said = "error"
    else:
        said = "right" if normalised(result.value) == value else "silently different"
    note(suite, said)
    assert said == ("refused" if policy else "right"), f"{result.error} / {result.value!r}, expected {value!r}"


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_gives_the_recorded_result(sandbox: CodeSandbox, verdict: Note, name: str) -> None:
    tools_fixture._Poll.n = 0
    judge(verdict, "programs", await sandbox.execute(PROGRAMS[name]), ("value", EXPECTED[name]))


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_gives_the_same_in_a_session(session: Session, verdict: Note, name: str) -> None:
    tools_fixture._Poll.n = 0
    judge(verdict, "programs, session", await session.execute(PROGRAMS[name]), ("value", EXPECTED[name]))


@pytest.mark.parametrize(("name", "code"), PROBES, ids=[name for name, _ in PROBES])
async def test_a_probe_gives_what_cpython_gives(sandbox: CodeSandbox, verdict: Note, name: str, code: str) -> None:
    expected = cpython(code)
    tools_fixture._Poll.n = 0
    judge(verdict, "probes", await sandbox.execute(code + "\nresult"), expected, policy=name in POLICY)


@pytest.mark.parametrize(("name", "code"), PROBES, ids=[name for name, _ in PROBES])
async def test_a_probe_gives_the_same_in_a_session(session: Session, verdict: Note, name: str, code: str) -> None:
    expected = cpython(code)
    tools_fixture._Poll.n = 0
    judge(verdict, "probes, session", await session.execute(code + "\nresult"), expected, policy=name in POLICY)
