"""Sparkplug B: the device as an edge node that publishes its scalars. `payload` is the encoding, `node` the behaviour.

Source: Eclipse Sparkplug 3.0.0. The identifiers (`tck-id-...`) beside the code are the specification's assertions.
"""
