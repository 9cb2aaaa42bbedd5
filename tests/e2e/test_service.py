from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as http

from edgekit.collector.service import Collector
from edgekit_contracts.container import unpack
from edgekit_contracts.limits import REQUEST_HEAD_MAX_BYTES
from edgekit_contracts.telemetry import Event, Kind
from edgekit_runtime.outbox import Outbox
from tests import bundles
from tests.brokers import Mosquitto, free_port, wait_until
from tests.service import Service


def refused(config: Path) -> tuple[int, str]:
    """Exit code and words of a service that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit_runtime", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "\nTry:   " in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_on_tcp_and_on_the_socket_and_ends_in_order(service: Service, number: int) -> None:
    service.start()
    assert service.call("GET", "/v2/health/ready") == (200, {"ready": True})
    over_tcp, over_unix = service.infer(), service.infer(unix=True)
    assert over_tcp == over_unix
    assert over_tcp[0] == 200
    assert service.stop(number) == 0
    assert "Traceback" not in service.log
    assert not service.log.splitlines()[-1].startswith("Error")


def test_the_client_of_triton_speaks_to_it(service: Service) -> None:
    service.start()
    with http.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny", "1.0")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        columns = [one["parameters"]["columns"] for one in client.get_model_metadata("tiny")["inputs"]]
        assert columns == [["age", "bmi"], ["sex"]]
        numbers = http.InferInput("numbers", [2, 2], "FP64")
        text = http.InferInput("text", [2, 1], "BYTES")
        expected = bundles.answers({name: column[:2] for name, column in bundles.ROWS.items()})
        for as_bytes in (True, False):
            numbers.set_data_from_numpy(np.array([[20.0, 22.0], [30.5, 25.0]]), binary_data=as_bytes)
            text.set_data_from_numpy(np.array([["f"], ["m"]], dtype=object), binary_data=as_bytes)
            wanted = [http.InferRequestedOutput(name, binary_data=as_bytes) for name in ("label", "probabilities")]
            for outputs in (None, wanted):
                answer = client.infer("tiny", [numbers, text], outputs=outputs, request_id="7", model_version="1.0")
                assert answer.get_response()["id"] == "7"
                label, probabilities = answer.as_numpy("label"), answer.as_numpy("probabilities")
                assert label is not None
                assert probabilities is not None
                assert label.shape == (2,)
                np.testing.assert_allclose(probabilities[0], expected[0], rtol=1e-12)
        for one in (["probabilities"], ["probabilities", "label"]):
            wanted = [http.InferRequestedOutput(name, binary_data=name == "label") for name in one]
            answer = client.infer("tiny", [numbers, text], outputs=wanted)
            assert [output["name"] for output in answer.get_response()["outputs"]] == one
            assert (answer.as_numpy("label") is None) == ("label" not in one)
        refused: list[tuple[str, str, list[http.InferInput]]] = [
            ("there is no model 'other'", "other", [numbers, text]),
            ("the request lacks the tensor 'text'", "tiny", [numbers]),
            ("is no BOOL", "tiny", [http.InferInput("numbers", [2, 2], "BOOL"), text]),
        ]
        refused[2][2][0]._raw_data, refused[2][2][0]._data = None, [1, 0, 1, 0]
        for words, model, inputs in refused:
            with pytest.raises(http.InferenceServerException, match=words):
                client.infer(model, inputs)
        with pytest.raises(http.InferenceServerException, match="no answer within 1e-06 s"):
            client.infer("tiny", [numbers, text], timeout=1)
        with pytest.raises(http.InferenceServerException, match=r"there is no model 'tiny 2\.0'"):
            client.get_model_metadata("tiny", "2.0")
        assert not client.is_model_ready("other")


def test_a_socket_left_by_a_crash_is_taken_over(service: Service) -> None:
    service.start()
    service.stop(signal.SIGKILL)
    assert service.socket_path.exists()
    service.start()
    assert service.infer(unix=True)[0] == 200


def test_a_port_in_use_is_one_sentence_and_exit_3(tmp_path: Path, made: bundles.Made) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, words = refused(Service(tmp_path, made, port=port).config)
    assert code == 3
    assert f"Error: cannot listen on 127.0.0.1:{port}: Address already in use" in words


def test_a_second_service_on_the_same_state_is_refused(tmp_path: Path, made: bundles.Made) -> None:
    service = Service(tmp_path, made, broker=f"mqtt://user:secret@127.0.0.1:{free_port()}")
    try:
        service.start()
        assert service.process is not None
        assert "secret" not in service.log
        second = tmp_path / "second.toml"
        second.write_text(service.config.read_text().replace("edgekit.sock", "second.sock"))
        code, words = refused(second)
        assert code == 3
        assert f"another edgekit-runtime (process {service.process.pid}) uses" in words
    finally:
        service.close()


def test_a_disk_that_takes_no_outbox_does_not_stop_the_answers(tmp_path: Path, made: bundles.Made) -> None:
    service = Service(tmp_path, made, broker=f"mqtt://127.0.0.1:{free_port()}")
    (tmp_path / "state" / "outbox.db").mkdir(parents=True)
    try:
        service.start()
        assert service.infer()[0] == 200
        assert "telemetry   off: cannot use" in service.log
        assert service.call("GET", "/edgekit/status")[1]["telemetry"].startswith("off: cannot use")
        (tmp_path / "state" / "outbox.db").rmdir()
        wait_until(lambda: "telemetry   to mqtt://" in service.log, "telemetry begins by itself")
        assert service.call("GET", "/edgekit/status")[1]["telemetry"]["state"] == "connecting"
        assert service.stop() == 0
    finally:
        service.close()
    with Outbox(tmp_path / "state" / "outbox.db", "dev-1") as outbox:
        assert sum(one.n for one in outbox.waiting() if one.kind is Kind.WINDOW) == len(bundles.ROWS["age"])


def test_a_service_stops_while_its_telemetry_waits_for_the_disk(tmp_path: Path, made: bundles.Made) -> None:
    service = Service(tmp_path, made, broker=f"mqtt://127.0.0.1:{free_port()}")
    (tmp_path / "state" / "outbox.db").mkdir(parents=True)
    try:
        service.start()
        assert service.stop() == 0
    finally:
        service.close()


def test_the_centre_hears_of_two_devices_of_one_name(mosquitto: Mosquitto, tmp_path: Path, made: bundles.Made) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    services = [Service(folder, made, broker=str(mosquitto.broker)) for folder in folders]
    with Collector(mosquitto.broker, tmp_path / "fleet.db") as centre:
        told: list[Event] = []
        centre.on_events = lambda events: told.extend(event for _, event in events)
        try:
            for service in services:
                service.start()
            wait_until(lambda: any(event.name == "name shared" for event in told), "it is told")
        finally:
            for service in services:
                service.close()


def test_what_is_answered_before_telemetry_has_begun_is_counted(tmp_path: Path, made: bundles.Made) -> None:
    service = Service(tmp_path, made, broker=f"mqtt://127.0.0.1:{free_port()}")
    try:
        service.spawn()

        def answered() -> bool:
            with contextlib.suppress(OSError):  # it does not listen yet
                return service.infer(unix=True)[0] == 200
            return False

        wait_until(answered, "the first answer")
        early = service.call("GET", "/edgekit/status", unix=True)[1]["telemetry"]
        wait_until(lambda: "serving" in service.log, "the service")
        assert service.infer(unix=True)[0] == 200
        assert service.stop() == 0
    finally:
        service.close()
    assert early == "starting" or early["state"] == "connecting"
    with Outbox(tmp_path / "state" / "outbox.db", "dev-1") as outbox:
        assert sum(one.n for one in outbox.waiting() if one.kind is Kind.WINDOW) == 2 * len(bundles.ROWS["age"])


def test_a_socket_can_be_all_there_is(tmp_path: Path, made: bundles.Made) -> None:
    service = Service(tmp_path, made)
    service.config.write_text(service.config.read_text().replace("port = 0", 'port = "off"'))
    try:
        service.start()
        assert service.infer(unix=True)[0] == 200
        assert "http://" not in service.log
    finally:
        service.close()


def test_a_flipped_bit_is_refused_with_exit_1(service: Service, made: bundles.Made) -> None:
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2] ^= 1
    made.path.write_bytes(data)
    assert refused(service.config)[0] == 1


def test_a_wrong_golden_answer_is_refused_with_exit_1(service: Service, made: bundles.Made) -> None:
    golden = unpack(made.path.read_bytes(), bundle="b")["golden.json"]
    wrong = golden.replace(b'"no"', b'"yes"', 1)
    assert wrong != golden
    # Built so by a trusted key: signature and hashes hold, only the answer is not what this machine computes.
    path = made.path
    from edgekit_contracts.golden import decode_golden

    labels = decode_golden(wrong).labels
    (path.parent / "wrong").mkdir()
    other = bundles.make(path.parent / "wrong", golden_set=bundles.golden(labels=labels))
    code, words = refused(Service(path.parent / "wrong", other).config)
    assert code == 1
    assert "tiny 1.0 fails its self-test here: 1 of 4 golden rows differ" in words


@pytest.mark.parametrize(
    ("setting", "code", "sentence"),
    [
        ("", 1, "device.toml is not valid: object missing required field `keys`"),
        (
            'device = "A/B"\nbundle = "b"\nkeys = ["k"]',
            1,
            "$.device: expected a lower-case letter or digit, then up to 62",
        ),
        ('device = "a"\nbundle = "b"\nkeys = ["k"]\nserv = 1', 1, "unknown field `serv`; there is serve"),
        (
            'device = "a"\nbundle = "b"\nkeys = ["k"]\n[serve]\nprot = 1',
            1,
            "$.serve: object contains unknown field `prot`; there is port",
        ),
        ('device = "a"\nbundle = "none.edge"\nkeys = ["none.pem"]', 2, "cannot read the public key"),
        ('device = "a', 1, "device.toml is not valid"),
        (
            'device = "a"\nbundle = "b"\nkeys = ["k"]\nserve = { port = "8080" }',
            1,
            """$.serve.port: expected a whole number or "off", found the text '8080'""",
        ),
    ],
)
def test_a_wrong_configuration_is_one_sentence(tmp_path: Path, setting: str, code: int, sentence: str) -> None:
    (tmp_path / "device.toml").write_text(setting)
    found, words = refused(tmp_path / "device.toml")
    assert found == code
    assert sentence in words


def test_predict_and_verify_work_from_the_command_line(made: bundles.Made, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,bmi,sex\n20,22.0,f\n")
    command = [sys.executable, "-m", "edgekit_runtime"]
    keys = ["--key", str(made.public)]
    done = subprocess.run(
        [*command, "predict", str(made.path), str(tmp_path / "in.csv"), *keys],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "age,bmi,sex,prediction,probability_no,probability_yes"
    done = subprocess.run([*command, "verify", str(made.path), *keys], capture_output=True, text=True, check=True)
    assert "4 golden rows right" in done.stdout


def test_a_head_without_end_is_cut_off_and_others_are_answered(service: Service) -> None:
    service.start()
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        client.sendall(b"GET /v2 HTTP/1.1\r\n")
        sent = 0
        try:
            while sent < 50 * REQUEST_HEAD_MAX_BYTES:
                client.sendall(b"x-header: " + b"y" * 8000 + b"\r\n")
                sent += 8000
            cut = client.recv(100).startswith(b"HTTP/1.1 431 ")
        except OSError:
            cut = True
    assert cut
    assert service.infer()[0] == 200


def test_answers_to_a_full_disk_are_one_sentence_and_exit_3(made: bundles.Made, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,bmi,sex\n" + "20,22,f\n" * 5000)
    command = [sys.executable, "-m", "edgekit_runtime", "predict", str(made.path), str(tmp_path / "in.csv")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--key", str(made.public)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert "Error: cannot use standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
