"""Owns how a run is laid out for a person: its calls under the lines that made them, over time; as HTML.

`page` is a whole document, `fragment` a piece for another page such as a notebook. A trace is hostile text:
it is escaped, and nothing in it can load, run or steer anything.
"""

from __future__ import annotations

from toolchord.timeline.document import fragment, page

__all__ = ["fragment", "page"]
