"""Which of our two distributions is installed: both together cannot be uninstalled one by one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgekit_contracts.errors import BothInstalled


def is_installed(distribution: str) -> bool:
    """Whether a distribution is in this environment."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def refuse_both() -> None:
    """Called by both commands before anything else.

    Raises:
        BothInstalled: edgekit-toolkit and edgekit-runtime are in one environment.
    """
    if is_installed("edgekit-toolkit") and is_installed("edgekit-runtime"):
        raise BothInstalled
