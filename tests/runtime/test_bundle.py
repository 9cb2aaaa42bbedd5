from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekit_contracts.container import pack, unpack
from edgekit_contracts.errors import (
    BundleDamaged,
    FormatError,
    MissingFile,
    SignatureRefused,
    UnsupportedFormat,
    UsageError,
)
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.signature import load_public_keys
from tests import bundles


@pytest.fixture
def made(tmp_path: Path) -> bundles.Made:
    return bundles.make(tmp_path)


def test_a_whole_bundle_opens_and_names_its_signer(made: bundles.Made) -> None:
    bundle = open_bundle(made.path, keys=load_public_keys([made.public]))
    assert bundle.manifest.title == "tiny 1.0"
    assert bundle.signer is not None
    assert bundle.signer.hint == made.key.public.hint
    assert bundle.golden.rows == 4
    assert bundle.reference.bins_id.hex() == bundle.manifest.bins_id


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"cannot read the bundle .*none\.edge: No such file"):
        open_bundle(tmp_path / "none.edge", keys=())


def test_one_flipped_bit_is_refused(made: bundles.Made) -> None:
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2] ^= 1
    made.path.write_bytes(data)
    with pytest.raises(BundleDamaged, match=r"tiny-1\.0\.edge is damaged"):
        open_bundle(made.path, keys=(made.key.public,))


def test_a_bundle_cut_short_is_refused(made: bundles.Made) -> None:
    made.path.write_bytes(made.path.read_bytes()[:-1])
    with pytest.raises(BundleDamaged, match="not a whole archive"):
        open_bundle(made.path, keys=(made.key.public,))


def test_another_key_is_refused_and_both_are_named(made: bundles.Made, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = bundles.make(tmp_path / "other")
    with pytest.raises(SignatureRefused, match=f"signed by key {made.key.public.hint[:12]}, which is not trusted here"):
        open_bundle(made.path, keys=load_public_keys([other.public]))


def test_an_unsigned_bundle_is_refused(made: bundles.Made) -> None:
    files = unpack(made.path.read_bytes(), bundle="b")
    del files["model.sig"]
    made.path.write_bytes(pack(files))
    with pytest.raises(SignatureRefused, match="it is not signed"):
        open_bundle(made.path, keys=(made.key.public,))


@pytest.mark.parametrize("change", ["change", "add", "remove"])
def test_files_other_than_those_signed_are_refused(made: bundles.Made, change: str) -> None:
    files = unpack(made.path.read_bytes(), bundle="b")
    if change == "change":
        files["golden.json"] += b" "
    elif change == "add":
        files["extra.txt"] = b""
    else:
        del files["golden.json"]
    made.path.write_bytes(pack(files))
    with pytest.raises(SignatureRefused, match="its files are not those that were signed"):
        open_bundle(made.path, keys=(made.key.public,))
    with pytest.raises(BundleDamaged):  # and the manifest alone sees it too
        open_bundle(made.path, keys=None)


def test_a_signature_in_another_spelling_is_refused(made: bundles.Made) -> None:
    files = unpack(made.path.read_bytes(), bundle="b")
    document = json.loads(files["model.sig"])
    document["dsseEnvelope"]["payload"] += "=="
    files["model.sig"] = json.dumps(document).encode()
    made.path.write_bytes(pack(files))
    with pytest.raises(SignatureRefused, match="canonical base64"):
        open_bundle(made.path, keys=(made.key.public,))


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 2000, b'{"mediaType": 1}', b"\xff"])
def test_a_garbage_signature_is_refused(made: bundles.Made, content: bytes) -> None:
    files = unpack(made.path.read_bytes(), bundle="b")
    files["model.sig"] = content
    made.path.write_bytes(pack(files))
    with pytest.raises(SignatureRefused):
        open_bundle(made.path, keys=(made.key.public,))


def test_a_newer_major_format_is_refused_with_the_next_step(made: bundles.Made) -> None:
    manifest = msgspec.json.decode(unpack(made.path.read_bytes(), bundle="b")["manifest.json"])
    manifest["format"] = "edgekit-bundle/3.0"
    path = made.changed(manifest_json=msgspec.json.encode(manifest))
    with pytest.raises(
        UnsupportedFormat, match=r"manifest has format edgekit-bundle/3\.0; this release reads edgekit-bundle/2\.x"
    ) as caught:
        open_bundle(path, keys=(made.key.public,))
    assert caught.value.next_step.startswith("update edgekit here")


def test_a_newer_minor_format_is_read(made: bundles.Made) -> None:
    manifest = msgspec.json.decode(unpack(made.path.read_bytes(), bundle="b")["manifest.json"])
    manifest |= {"format": "edgekit-bundle/1.7", "later": {"field": 1}}
    path = made.changed(manifest_json=msgspec.json.encode(manifest))
    assert open_bundle(path, keys=(made.key.public,)).manifest.format == "edgekit-bundle/1.7"


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("features", 1, "name"), "age", r"\$\.features"),
        (("inputs", 0, "features"), ["age"], r"\$\.inputs"),
        (("variants", 0, "file"), "other.onnx", r"\$\.variants\[0\]\.file"),
        (("classes",), [], r"\$\.classes"),
        (("features", 0, "dtype"), "complex", r"\$\.features\[0\]\.dtype"),
        (("files", 0, "sha256"), "xyz", r"\$\.files\[0\]\.sha256"),
    ],
)
def test_a_wrong_manifest_names_the_path(
    made: bundles.Made, path: tuple[str | int, ...], value: object, where: str
) -> None:
    tree = manifest = msgspec.json.decode(unpack(made.path.read_bytes(), bundle="b")["manifest.json"])
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = value
    changed = made.changed(manifest_json=msgspec.json.encode(manifest))
    with pytest.raises(FormatError, match=f"manifest is not valid at {where}"):
        open_bundle(changed, keys=(made.key.public,))


def test_a_file_that_is_no_public_key_is_named(made: bundles.Made) -> None:
    with pytest.raises(UsageError, match="holds no EC P-256 public key"):
        load_public_keys([made.path])


def test_the_same_inputs_give_the_same_bytes(made: bundles.Made) -> None:
    from edgekit_converters.bundle import assemble

    again = assemble(bundles.manifest(), bundles.model(), bundles.reference(), bundles.golden(), made.key)
    assert again == made.path.read_bytes()


def test_anyone_can_check_the_signature_with_openssf_model_signing(made: bundles.Made, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(folder)
    command = [sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key", str(folder)]
    arguments = ["--signature", str(folder / "model.sig"), "--public_key", str(made.public)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "model.onnx").write_bytes(b"other")
    assert subprocess.run([*command, *arguments], capture_output=True, check=False).returncode != 0


def test_plain_onnxruntime_runs_an_unpacked_bundle(made: bundles.Made, tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "unpacked" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    feed = {"numbers": np.array([[20.0, np.nan]]), "text": np.array([["f"]], dtype=object)}
    answers: Any = session.run(None, feed)
    label, probabilities = answers
    expected = bundles.answers({"age": [20.0], "bmi": [None], "sex": ["f"]})
    assert label.tolist() == ["no" if expected[0, 0] > 0.5 else "yes"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-12)
