"""The Open Inference Protocol v2 (REST).

`decoding` makes rows of requests, `oip` responses of answers, `binary` knows tensors' bytes, `app` paths; `message` is
what passes between it and `protocol`, one connection; `server` owns the sockets, `metrics` counts for Prometheus.

Source: Open Inference Protocol, kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""
