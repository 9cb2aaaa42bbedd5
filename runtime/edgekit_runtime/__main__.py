"""The `edgekit-runtime` command; argparse, so that the device carries no library for it.

`run` stands here: what is not needed for the start of a service is imported inside the functions, the other commands
(`cli`) among it.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit_contracts.errors import EdgekitError, EnvironmentFault
from edgekit_runtime import __version__, logs
from edgekit_runtime.cli import say, settings_of
from edgekit_runtime.config import Log
from edgekit_runtime.installed import refuse_both
from edgekit_runtime.interrupts import command
from edgekit_runtime.lean import import_hashlib, import_numpy, is_large
from edgekit_runtime.probe import ensure_runs_here

_log = logging.getLogger("edgekit.command")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 done; 1 refused for a stated reason; 2 usage; 3 the environment; 130 interrupted.
    """
    # Its threads would spin while Python imports, and no product of ours is large enough for them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(run_alone=arguments[:1] == ["run"]).parse_args(arguments)
    logs.configure(Log())
    try:
        refuse_both()
        return int(options.action(options))
    except (EdgekitError, ImportError) as error:
        fault = _fault(error)
        print(f"Error: {fault.sentence}\nTry:   {fault.next_step}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `edgekit-runtime predict ... | head`
        sys.stderr.close()
        return 0


def _run(options: argparse.Namespace) -> int:
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # until there is something to reload and to test
    gc.disable()  # what a start makes stays; the service enables it
    config = settings_of(options).config
    logs.configure(config.log)
    as_json = config.log.format == "json"
    try:
        if not any(is_large(Path(model.bundle)) for model in config.served):
            import_hashlib()
        from edgekit_runtime.vouching import Vouching

        vouching = Vouching(config)  # forks, and so comes before any thread
        ensure_runs_here(Path(config.state_dir))
        import_numpy()
        from edgekit_runtime.service import run

        run(config, _log_step if as_json else say, lambda: settings_of(options).config, vouching)
    except (EdgekitError, ImportError) as error:
        if not as_json:
            raise
        fault = _fault(error)
        _log.critical("%s; %s", fault.sentence, fault.next_step)
        return fault.exit_code
    return 0


def _fault(error: EdgekitError | ImportError) -> EdgekitError:
    """What ends the command; a library may have been damaged since it was last seen to run here."""
    if isinstance(error, EdgekitError):
        return error
    return EnvironmentFault(
        f"a library cannot be imported: {error}", "see 'edgekit-runtime doctor', and install edgekit-runtime again"
    )


def _log_step(line: str) -> None:
    _log.info("%s", " ".join(line.split()))


class _Help(argparse.HelpFormatter):
    """Help as wide as the terminal. argparse asks shutil for that, which brings every compressor, also for no help."""

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns
        except (ValueError, OSError):
            columns = 80
        super().__init__(prog, width=columns - 2)


def _parser(*, run_alone: bool) -> argparse.ArgumentParser:
    """The command line's; with `run_alone` of a service's start, which builds no other command's."""
    parser = argparse.ArgumentParser(
        prog="edgekit-runtime",
        formatter_class=_Help,
        description="Runs edgekit bundles on a device.",
        epilog="Exit codes: 0 done; 1 refused for a stated reason; 2 usage; 3 the environment; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"edgekit-runtime {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    settings = argparse.ArgumentParser(add_help=False, formatter_class=_Help)
    settings.add_argument(
        "--config",
        type=Path,
        metavar="device.toml",
        help="the device's settings (default: $EDGEKIT_CONFIG, ./device.toml, /etc/edgekit/device.toml)",
    )

    serving = "verify a bundle, test it here, serve it and report"
    run = commands.add_parser("run", parents=[settings], help=serving, formatter_class=_Help)
    run.add_argument("bundle", type=Path, nargs="?", help="instead of the settings' bundle")
    run.add_argument("--key", action="append", metavar="PUB.PEM", help="instead of the settings' keys (repeatable)")
    run.set_defaults(action=_run)
    if run_alone:
        return parser

    from edgekit_runtime.cli import bundles, device

    device.add(commands, settings)
    bundles.add(commands, settings)
    return parser


if __name__ == "__main__":
    sys.exit(command(lambda: main))
