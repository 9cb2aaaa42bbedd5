"""The fleet as a whole: how every device stands.

| module | holds |
|---|---|
| `status` | from the store to one line for each device: alive or not, what it runs, latency, drift, losses, alarms |
| `alerts` | these alarms, and what devices tell, in JSON over MQTT |
"""
