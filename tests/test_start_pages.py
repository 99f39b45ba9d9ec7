"""Somebody new follows a start page to its end, from the wheel, in a clean environment. `make walk` follows all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.walk import Failed, Walk, Walked, blocks, build, pages

CORE = next((page for page in pages() if "toolchord[" not in page.read_text()), pages()[0])

PAGE = """# Start

```console
$ pip install 'toolchord[mcp,cli]' other
$ make demo
```

```python
# start.py
names = ["a", "b"]
print(len(names), id(names))
```

```console
$ python start.py
2 …
```

```python
async def later():
    return names
print(await later())
```

```output
['a', 'b']
```

```python
return await tool()
```

## With a model

With a key in `SOME_API_KEY`:

```python
raise SystemExit("not run")
```

## More

```python
raise SystemExit("it may need what was left out")
```
"""


def follow(text: str, folder: Path) -> Walked:
    """Follow a page in the environment of the tests."""
    page = folder / "page.md"
    page.write_text(text)
    return Walk(page, folder, folder / "none.whl", Path(sys.executable)).to_its_end()


@pytest.mark.slow
def test_the_first_start_page_is_followed_to_its_end(tmp_path: Path) -> None:
    """Installs the wheel; needs the package registry."""
    (folder := tmp_path / "reader").mkdir()
    walked = Walk(CORE, folder, build(tmp_path)).to_its_end()
    assert walked.done >= 1
    assert walked.left_out == []
    assert (tmp_path / "reader-env" / "bin" / "toolchord").exists()


def test_commands_files_and_snippets_of_a_page_are_followed(tmp_path: Path) -> None:
    walked = follow(PAGE, tmp_path)
    assert (walked.extras, walked.done, walked.left_out) == ("[mcp,cli]", 3, [38, 44])
    assert [block.language for block in blocks(PAGE)] == ["console", "python", "console", "python", "output"] + [
        "python"
    ] * 3


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("2 …", "3 …", r"page.md:15: the page says\n3 …"),
        ("['a', 'b']", "['a']", r"page.md:26: the page says"),
        ("return names", "return nothing", r'(?s)page.md:20:.*File "page", line 22.*NameError'),
        ("$ python start.py", "$ python missing.py", r"(?s)page.md:15: .* ended with 2:.*missing.py"),
        ("$ make demo", "$ curl x", "page.md:4: no reader is told to run 'curl' here"),
    ],
)
def test_a_page_that_cannot_be_followed_is_noticed_and_where(tmp_path: Path, old: str, new: str, why: str) -> None:
    with pytest.raises(Failed, match=why):
        follow(PAGE.replace(old, new), tmp_path)
