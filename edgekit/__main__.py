"""`python -m edgekit`: the command, of the Python that is named."""

from __future__ import annotations

import sys

from edgekit.entry import main

if __name__ == "__main__":
    sys.exit(main())
