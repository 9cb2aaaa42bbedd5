"""Which distributions are installed. Both of ours together cannot be uninstalled one by one.

`importlib.metadata` answers the same, and takes a twentieth of the service's start to be imported.
"""

from __future__ import annotations

import os
import re
import sys

from edgekit_contracts.errors import BothInstalled


def installed_version(distribution: str) -> str | None:
    """The version of a distribution in this environment; None where it is not there.

    Source: PyPA, "Recording installed projects": the directory `name-version.dist-info`, the name normalized, "-" as
    "_".
    """
    name = re.sub(r"[-_.]+", "_", distribution).lower()
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")
        except OSError:  # a zip file, or nothing
            continue
        for entry in entries:
            found, _, version = entry.removesuffix(".dist-info").partition("-")
            if entry.endswith(".dist-info") and re.sub(r"[-_.]+", "_", found).lower() == name:
                return version
    return None


def refuse_both() -> None:
    """Called by both commands before anything else.

    Raises:
        BothInstalled: edgekit-toolkit and edgekit-runtime are in one environment.
    """
    if installed_version("edgekit-toolkit") and installed_version("edgekit-runtime"):
        raise BothInstalled
