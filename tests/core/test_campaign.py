"""The short form of the fault campaign; `make campaign` is the long one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.campaign import campaign
from tests.postgres import server as cluster


@pytest.mark.slow
def test_killed_runs_go_on_and_nothing_happens_twice(capsys: Any) -> None:
    with cluster() as database:
        figures = campaign(range(10), ["sqlite", database])
    with capsys.disabled():
        print(f"\n{figures}")
    assert not figures.wrong
    assert figures.seeds == 10
    assert figures.kills >= 10


@pytest.mark.slow
def test_the_campaign_would_notice_what_happens_twice() -> None:
    for first in range(0, 60, 4):
        figures = campaign(range(first, first + 4), ["sqlite"], careless=True)
        if figures.took_effect:
            assert any("more than once" in one or "unasked" in one for one in figures.wrong)
            return
    pytest.fail("no call was cut off after its effect")
