"""`model`, `review`, `predict` and `verify`: bundles in service, and what they answer, to a person and to tables."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from edgekit_contracts.errors import StorageFault
from edgekit_runtime.cli import echo_json, say, settings_of, settings_of_the_service
from edgekit_runtime.probe import ensure_runs_here

_KEY_HELP: Final = "trusted public key (repeatable; default: those of the settings, else your own)"


def add(commands: Any, settings: argparse.ArgumentParser) -> None:
    """Adds them to the command line; `settings` has `--config`."""
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
    predict.add_argument("--key", action="append", metavar="PUB.PEM", help=_KEY_HELP)
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
    verify.add_argument("--key", action="append", metavar="PUB.PEM", help=_KEY_HELP)
    verify.add_argument("--json", action="store_true", help="one JSON object on standard output")
    verify.set_defaults(action=_verify)


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


def _model(options: argparse.Namespace) -> int:
    from edgekit_runtime import commanding

    config = settings_of_the_service(options).config
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

    config = settings_of(options).config
    if options.verb == "list":
        desk.show(config, everything=options.all, as_json=options.json)
    elif options.verb == "export":
        desk.export(config, options.output)
    else:
        desk.answer(config, options.item, options.label, as_json=options.json)
    return 0


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
            say("what is done is kept: run the same command with --resume to go on")
        raise
    say(f"{rows:,} rows answered by {engine.manifest.title}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    ensure_runs_here()
    import onnxruntime

    from edgekit_runtime.bundle import open_bundle
    from edgekit_runtime.engine import Engine
    from edgekit_runtime.selftest import check_golden
    from edgekit_runtime.signature import load_public_keys
    from edgekit_runtime.trust import keys_here

    bundle = open_bundle(options.bundle, keys=load_public_keys(options.key or keys_here()))
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
        echo_json(facts)
    else:
        print(
            f"{bundle.manifest.title}: signed by {bundle.signer.hint[:12]}, every file as signed; "
            f"{result.rows} golden rows right on onnxruntime {onnxruntime.__version__} "
            f"(largest difference {result.max_difference:.2g})"
        )
    return 0
