"""Telemetry under kills: is everything that was produced stored, or counted as given up, and nothing twice?

`device` is a device without a model: outbox, uplink, windows as fast as it may. `network` cuts connections and delivers
messages again. `centre` runs them and the collector, which are killed. `__main__` throws the dice, `outcome` counts.
"""
