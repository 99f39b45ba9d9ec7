"""The command `toolchord`, also as ``python -m toolchord``: says what is missing where an extra is."""

from __future__ import annotations

import sys

from toolchord.errors import DeveloperError


def main() -> None:
    """Run the command; an error of the developer's family is one line on stderr and exit code 2."""
    try:
        from toolchord.cli import app

        app()
    except DeveloperError as error:
        sys.exit(_said(error))


def _said(error: DeveloperError) -> int:
    print(f"toolchord: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
