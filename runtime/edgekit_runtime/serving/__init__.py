"""The Open Inference Protocol v2 (REST): `oip` knows tensors, `app` knows paths, `server` knows sockets.

Source: Open Inference Protocol, kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""
