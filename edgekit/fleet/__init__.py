"""The fleet as a whole: how every device stands, and who may speak for whom.

| module | holds |
|---|---|
| `status` | from the store to one line for each device: alive or not, what it runs, latency, drift, losses, alarms |
| `starts` | whether two starts of a device speak of the same time |
| `alerts` | these alarms, and what devices tell, in JSON over MQTT |
| `authority`, `certificates`, `register` | who is who: issued, revoked, and kept |
| `enrolment`, `enrolment_server` | a certificate for a token, for the last one, or for a request by file |
| `broker_config` | a Mosquitto that believes these certificates |
"""
