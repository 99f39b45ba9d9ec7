"""What a model is told of a program that failed: enough to repair it in one go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.core.broken import BROKEN, TOOLS, Broken
from toolchord import CodeSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=TOOLS) as sandbox:
        yield sandbox


async def test_there_are_sixty_at_least() -> None:
    assert len({broken.name for broken in BROKEN}) == len(BROKEN) >= 60


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.name for broken in BROKEN])
async def test_a_broken_programs_message_says_how_to_repair_it(sandbox: CodeSandbox, broken: Broken) -> None:
    result = await sandbox.execute(broken.code)
    message = result.for_model()
    assert result.error is not None
    assert result.error.line == broken.line, message
    if broken.line:
        assert f"(line {broken.line})" in message
    kind, beginning = broken.cause
    assert (result.error.type, result.error.message[: len(beginning)]) == (kind, beginning), message
    assert f"{kind}" in message.splitlines()[0]
    for part in (broken.shape, broken.near, broken.fix):
        assert part is None or part in message, f"{part!r} is not in\n{message}"
    assert tuple(call.tool.removeprefix("default.") for call in result.calls) == broken.ran
    if broken.ran:
        assert "Calls that already happened (their effects remain):" in message
        assert all(f": {tool}(" in message for tool in broken.ran), message
    else:
        assert "Nothing ran: no tool was called." in message or "No tool was called." in message
