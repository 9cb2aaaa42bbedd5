"""The Open Inference Protocol v2 (REST).

`oip` knows tensors, `binary` their bytes, `app` paths, `protocol` limits, `server` sockets.

Source: Open Inference Protocol, kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""
