"""Which of our two distributions is installed: both together cannot be uninstalled one by one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgekit_contracts.errors import BothInstalled


def refuse_both() -> None:
    """Called by both commands before anything else.

    Raises:
        BothInstalled: edgekit-toolkit and edgekit-runtime are in one environment.
    """
    try:
        version("edgekit-toolkit")
        version("edgekit-runtime")
    except PackageNotFoundError:
        return
    raise BothInstalled
