from __future__ import annotations

import math

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edgekit_runtime.ledger import Account
from edgekit_runtime.serving import metrics
from edgekit_runtime.serving.metrics import MODELS_MAX, Metrics
from edgekit_runtime.strategies.shadow import ShadowCounts
from tests.serving import INFER, request, running


def parsed(body: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def value(family: Metric, **labels: str) -> float:
    (found,) = [sample.value for sample in family.samples if labels.items() <= sample.labels.items()]
    return float(found)


def test_prometheus_reads_what_the_server_did() -> None:
    with running() as server:
        answers = [server.ask(request(body=body)) for body in (INFER, INFER, b"{")]
        server.ask(request("/nowhere"))
        reply = server.ask(request("/metrics"))
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert reply.headers["content-type"] == metrics.CONTENT_TYPE.decode()
    families = parsed(reply.body)
    model = {"model": "tiny", "version": "1.0"}
    assert families["edgekit_requests"].type == "counter"
    assert value(families["edgekit_requests"], code="200", **model) == 2
    assert value(families["edgekit_requests"], code="400", **model) == 1
    assert value(families["edgekit_rejected"], **model) == 1
    assert value(families["edgekit_failed"], **model) == 0
    assert value(families["edgekit_rows"], **model) == 2
    assert value(families["edgekit_http_responses"], code="404") == 1
    assert value(families["edgekit_connections"]) == 1
    assert value(families["edgekit_requests_in_flight"]) == 1
    assert value(families["edgekit_ready"]) == 1
    assert value(families["edgekit_telemetry_info"], state="off") == 1
    assert value(families["process_resident_memory_bytes"]) > 1e7
    assert value(families["process_cpu_seconds"]) > 0
    assert value(families["edgekit_build_info"]) == 1
    histogram = families["edgekit_request_seconds"]
    assert histogram.type == "histogram"
    buckets = [sample for sample in histogram.samples if sample.name.endswith("_bucket")]
    assert [sample.value for sample in buckets] == sorted(sample.value for sample in buckets)
    assert math.isinf(float(buckets[-1].labels["le"]))
    assert buckets[-1].value == 2


def test_shadows_and_answers_in_another_s_place_are_counted() -> None:
    counted = Metrics()
    counted.of("a", "1").answered(0.1, rows=2, abstained=0, stood_in=True)
    shadow = ({"model": "a", "version": "2"}, ShadowCounts(rows=10, agreed=9, skipped=4))
    families = parsed(counted.exposition(ready=True, telemetry="off", outbox_records=None, shadows=[shadow]))
    assert value(families["edgekit_stood_in"], model="a", version="1") == 1
    assert value(families["edgekit_shadow_rows"], model="a", version="2") == 10
    assert value(families["edgekit_shadow_agreed_rows"]) == 9
    assert value(families["edgekit_shadow_skipped_rows"]) == 4


def test_a_latency_is_counted_in_every_bucket_that_holds_it() -> None:
    counted = Metrics()
    for seconds in (0.00005, 0.00006, 3.0):
        counted.of("a", "1").answered(seconds, rows=2, abstained=1)
    families = parsed(counted.exposition(ready=False, telemetry="connected", outbox_records=7))
    found = {s.labels["le"]: s.value for s in families["edgekit_request_seconds"].samples if "le" in s.labels}
    assert (found["5e-05"], found["0.0001"], found["1.0"], found["+Inf"]) == (1, 2, 2, 3)
    assert value(families["edgekit_abstained"]) == 3
    assert value(families["edgekit_outbox_records"]) == 7
    assert value(families["edgekit_ready"]) == 0


def test_the_bytes_of_telemetry_are_counted_by_direction_and_by_stream() -> None:
    account = Account(total=150, sent=100, received=50, protocol=30, streams={"windows": 90, "acknowledgements": 30})
    families = parsed(Metrics().exposition(ready=True, telemetry="connected", outbox_records=0, bytes_=account))
    assert value(families["edgekit_mqtt_bytes"], direction="received") == 50
    streams = {s.labels["stream"]: s.value for s in families["edgekit_mqtt_stream_bytes"].samples}
    assert streams == {"windows": 90, "acknowledgements": 30, "protocol": 30}


def test_labels_are_escaped_and_versions_bounded() -> None:
    counted = Metrics()
    for number in range(MODELS_MAX + 5):
        counted.of("a", f'{number}"\\\n').answered(0.1, rows=1, abstained=0)
    samples = parsed(counted.exposition(ready=True, telemetry="off", outbox_records=None))["edgekit_rows"].samples
    assert [sample.labels["version"] for sample in samples] == [f'{n}"\\\n' for n in range(5, MODELS_MAX + 5)]
