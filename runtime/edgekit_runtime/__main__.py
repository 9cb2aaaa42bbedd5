"""The `edgekit-runtime` command; argparse, so that the device carries no library for it.

`run`, `predict` and `verify` answer with a bundle; `doctor`, `status` and `config` say what is wrong, what runs, and
what is set; `model` exchanges bundles, `review` is for the person who has the last word, `enrol` for the device's
certificate, `unit` for systemd. What is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edgekit_contracts.errors import EdgekitError, EnvironmentFault, StorageFault
from edgekit_runtime import __version__, logs
from edgekit_runtime.config import Log
from edgekit_runtime.installed import refuse_both
from edgekit_runtime.interrupts import command
from edgekit_runtime.lean import import_hashlib, import_numpy, is_large
from edgekit_runtime.probe import ensure_runs_here
from edgekit_runtime.settings import Settings, find_file, leaves, load_settings

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
    except EdgekitError as error:
        print(f"Error: {error.sentence}\nTry:   {error.next_step}", file=sys.stderr)
        return error.exit_code
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
    config = _settings(options).config
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

        run(config, _log_step if as_json else _say, lambda: _settings(options).config, vouching)
    except EdgekitError as error:
        if not as_json:
            raise
        _log.critical("%s; %s", error.sentence, error.next_step)
        return error.exit_code
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict
    from itertools import chain

    from edgekit_runtime.doctor import Finding, examine, exit_code

    config, findings = None, []
    if find_file(options.config) is None:
        first = Finding("settings", "warn", "no device.toml here", "name it with --config, to have all of it looked at")
    else:
        try:
            settings = _settings(options)
            config = settings.config
            first = Finding("settings", "ok", f"{settings.path}: device {config.device}")
        except EdgekitError as error:
            first = Finding.of("settings", error)
    for finding in chain((first,), examine(config)):
        findings.append(finding)
        if not options.json:
            print(finding.line(), flush=True)
    if options.json:
        print(_json({"schema": 1, "findings": [asdict(finding) for finding in findings]}, indent=2))
    return exit_code(findings)


def _status(options: argparse.Namespace) -> int:
    from edgekit_runtime.ask import ask, places

    settings = _asked(options)
    status, body = ask(places(settings.config), "/edgekit/status")
    if status != 200:
        raise EnvironmentFault(f"the service answers with status {status}", "look into its log")
    if options.json:
        print(_json({"schema": 1, **body}))
    else:
        for name, value in leaves(body):
            print(f"{name:<28}  {'' if value is None else value}".rstrip())
    return 0


def _selftest(options: argparse.Namespace) -> int:
    from edgekit_runtime.ask import self_test

    found = self_test(_asked(options).config)
    if options.json:
        print(_json({"schema": 1, **found}))
    else:
        print(f"{found['golden_rows']} golden rows right (largest difference {found['max_difference']:.2g})")
    return 0


def _config(options: argparse.Namespace) -> int:
    from msgspec.structs import asdict

    settings = _settings(options)
    if options.json:
        print(_json({"schema": 1, "settings": [asdict(setting) for setting in settings.listed()]}))
    else:
        for setting in settings.listed():
            print(f"{setting.name:<24}  {_json(setting.value):<40}  {setting.origin}")
    return 0


def _model(options: argparse.Namespace) -> int:
    from edgekit_runtime import commanding

    config = _asked(options).config
    if options.verb == "show":
        commanding.show(config, as_json=options.json)
    elif options.verb == "stage":
        plan = {name: getattr(options, name) for name in ("strategy", "share", "cpu_share", "tolerance")}
        said = {name: value for name, value in plan.items() if value is not None}
        commanding.stage(config, options.bundle, said, as_json=options.json)
    else:
        commanding.command(config, options.verb, options.model, as_json=options.json)
    return 0


def _review(options: argparse.Namespace) -> int:
    from edgekit_runtime.oversight import desk

    config = _settings(options).config
    if options.verb == "list":
        desk.show(config, everything=options.all, as_json=options.json)
    elif options.verb == "export":
        desk.export(config, options.output)
    else:
        desk.answer(config, options.item, options.label, as_json=options.json)
    return 0


def _unit(options: argparse.Namespace) -> int:
    from importlib.resources import files

    program = Path(sys.argv[0]).resolve()
    text = (files("edgekit_runtime") / "files" / "edgekit-runtime.service").read_text(encoding="utf-8")
    print(text.replace("@PROGRAM@", str(program)), end="")
    if any(program.is_relative_to(home) for home in ("/home", "/root", "/run/user")):
        _say(f"note: the unit does not let its service see {program.parents[-3]}; install edgekit-runtime elsewhere")
    return 0


def _asked(options: argparse.Namespace) -> Settings:
    """The settings of a command that asks the service."""
    path = find_file(options.config)
    # A service that was started with nothing but a bundle has no file, and answers where the defaults say.
    given = {"bundle": ("", "default"), "keys": ([""], "default")} if path is None else None
    return load_settings(path, given=given)


def _settings(options: argparse.Namespace) -> Settings:
    """The settings of a command with `--config` and, in `run`, a bundle and keys."""
    given: dict[str, tuple[object, str]] = {}
    if getattr(options, "bundle", None) is not None:
        given["bundle"] = str(options.bundle), "the command line"
    if getattr(options, "key", None):
        given["keys"] = options.key, "--key"
    # A bundle that is named is served with the defaults, unless a file is named too.
    path = options.config if "bundle" in given else find_file(options.config)
    return load_settings(path, given=given)


def _enrol(options: argparse.Namespace) -> int:
    from edgekit_runtime import enrolling

    return enrolling.run(options)


def _predict(options: argparse.Namespace) -> int:
    ensure_runs_here()
    from edgekit_runtime import load
    from edgekit_runtime.batch import predict_file
    from edgekit_runtime.batch.progress import Progress

    engine = load(options.bundle, keys=options.key, threads=options.threads).engine
    try:
        with closing(Progress()) as progress:
            rows = predict_file(engine, options.table, options.output or sys.stdout, progress, resume=options.resume)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageFault("standard output", error.strerror or str(error)) from error
    except KeyboardInterrupt:
        if options.output:
            _say("what is done is kept: run the same command with --resume to go on")
        raise
    _say(f"{rows:,} rows answered by {engine.manifest.title}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    ensure_runs_here()
    import onnxruntime

    from edgekit_runtime.bundle import open_bundle
    from edgekit_runtime.engine import Engine
    from edgekit_runtime.selftest import check_golden
    from edgekit_runtime.signature import load_public_keys

    bundle = open_bundle(options.bundle, keys=load_public_keys(options.key))
    assert bundle.signer is not None
    result = check_golden(Engine(bundle.model, bundle.manifest), bundle.golden)
    facts = {
        "schema": 1,
        "bundle": str(options.bundle),
        "model": bundle.manifest.title,
        "sha256": bundle.sha256,
        "key": bundle.signer.hint,
        "onnxruntime": onnxruntime.__version__,
        "golden_rows": result.rows,
        "max_difference": result.max_difference,
    }
    if options.json:
        print(_json(facts))
    else:
        print(
            f"{bundle.manifest.title}: signed by {bundle.signer.hint[:12]}, every file as signed; "
            f"{result.rows} golden rows right on onnxruntime {onnxruntime.__version__} "
            f"(largest difference {result.max_difference:.2g})"
        )
    return 0


def _json(value: object, indent: int | None = None) -> str:
    import json

    return json.dumps(value, indent=indent)


def _log_step(line: str) -> None:
    _log.info("%s", " ".join(line.split()))


def _say(line: str) -> None:
    # One write: two would let a line of the log in between.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


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

    doctor = commands.add_parser("doctor", parents=[settings], help="say what is wrong with this device, by name")
    doctor.set_defaults(action=_doctor)
    status = commands.add_parser("status", parents=[settings], help="ask the service that runs here")
    status.set_defaults(action=_status)
    config = commands.add_parser("config", parents=[settings], help="show every setting, and where it comes from")
    config.set_defaults(action=_config)
    unit = commands.add_parser("unit", help="print a systemd unit for this installation")
    unit.set_defaults(action=_unit)
    selftest = commands.add_parser("selftest", parents=[settings], help="have the running service replay golden sets")
    selftest.set_defaults(action=_selftest)
    for one in (doctor, status, selftest, config):
        one.add_argument("--json", action="store_true", help="one JSON object on standard output")

    enrol = commands.add_parser("enrol", parents=[settings], help="get this device its certificate, or the next one")
    enrol.set_defaults(action=_enrol)
    enrol.add_argument("url", nargs="?", metavar="https://HOST:8884", help="the fleet's enrolment service")
    enrol.add_argument("token", nargs="?", help="of `edgekit fleet enrol token`; - reads it from standard input")
    enrol.add_argument("--renew", action="store_true", help="the next certificate, by the one in force")
    enrol.add_argument("--request", type=Path, metavar="FILE", help="without a network: write a request to be signed")
    enrol.add_argument("--accept", type=Path, metavar="FILE", help="and take in what was granted")
    enrol.add_argument("--device", help="instead of the settings' name")
    enrol.add_argument("--dir", type=Path, help="where key and certificate lie, instead of the settings' files")

    model = commands.add_parser("model", help="the bundles of the service that runs: show, stage, activate, return")
    model.set_defaults(action=_model)
    _add_model(model.add_subparsers(required=True, metavar="VERB", dest="verb"), settings)

    review = commands.add_parser("review", help="doubtful answers that wait for a person")
    review.set_defaults(action=_review)
    verbs = review.add_subparsers(required=True, metavar="VERB", dest="verb")
    listed = verbs.add_parser("list", parents=[settings], help="what waits")
    listed.add_argument("--all", action="store_true", help="what was answered too")
    said = verbs.add_parser("answer", parents=[settings], help="say what is true of an item")
    said.add_argument("item", type=int, help="its number in the list")
    said.add_argument("label", help="a class of the model, or a number")
    for verb in (listed, said):
        verb.add_argument("--json", action="store_true", help="one JSON object on standard output")
    export = verbs.add_parser("export", parents=[settings], help="everything, as JSON Lines")
    export.add_argument("-o", "--output", type=Path, help="the file (default: standard output)")

    predict = commands.add_parser("predict", help="run a CSV, JSON Lines or Parquet file through a bundle")
    predict.add_argument("bundle", type=Path)
    predict.add_argument("table", type=Path, help=".csv, .jsonl or .parquet; further columns are carried along")
    predict.add_argument(
        "--key", action="append", required=True, metavar="PUB.PEM", help="trusted public key (repeatable)"
    )
    predict.add_argument("-o", "--output", type=Path, help="file of the same kind (default: standard output)")
    predict.add_argument("--resume", action="store_true", help="go on where a run that was killed has stopped")
    predict.add_argument(
        "--threads",
        type=int,
        choices=range(1, 65),
        default=1,
        metavar="1-64",
        help="threads inside one call (default 1)",
    )
    predict.set_defaults(action=_predict)

    verify = commands.add_parser("verify", help="check a bundle's signature, files and golden set on this machine")
    verify.add_argument("bundle", type=Path)
    verify.add_argument(
        "--key", action="append", required=True, metavar="PUB.PEM", help="trusted public key (repeatable)"
    )
    verify.add_argument("--json", action="store_true", help="one JSON object on standard output")
    verify.set_defaults(action=_verify)
    return parser


def _add_model(verbs: Any, settings: argparse.ArgumentParser) -> None:
    verbs.add_parser("show", parents=[settings], help="what is live, what is tried, and what was live before")
    stage = verbs.add_parser("stage", parents=[settings], help="try a bundle beside the live one")
    stage.add_argument("bundle", type=Path)
    stage.add_argument("--strategy", choices=("shadow", "canary", "blue-green"), help="default: shadow")
    stage.add_argument("--share", type=float, help="of the keys, for a canary (default 0.05)")
    stage.add_argument("--cpu-share", type=float, help="of one processor, for a shadow (default 0.1)")
    stage.add_argument("--tolerance", type=float, help="within which a shadow's values agree (default 0.01)")
    for verb, words in (
        ("activate", "the candidate becomes live; what was live is kept warm"),
        ("return", "what was live before is live again"),
        ("promote", "make it final: what was live before leaves memory"),
        ("drop", "end the trial"),
    ):
        verbs.add_parser(verb, parents=[settings], help=words).add_argument("--model", help="where there are several")
    for parser in verbs.choices.values():
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


if __name__ == "__main__":
    sys.exit(command(lambda: main))
