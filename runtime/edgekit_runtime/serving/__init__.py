"""The Open Inference Protocol v2 (REST).

`oip` knows tensors, `binary` their bytes, `app` paths, `message` requests and responses, `protocol` what a connection
may send, `server` sockets, `metrics` Prometheus.

Source: Open Inference Protocol, kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""
