"""`make bench`: all benchmarks, one after another."""

from __future__ import annotations

import asyncio

from benchmarks.core import main

asyncio.run(main())
