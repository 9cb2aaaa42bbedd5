"""From MQTT to the store: what devices send is checked, stored once, and only then acknowledged.

```
 broker --> service (network thread) --> queue --> worker: ingest.read -> store.ingest -> COMMIT -> Ack --> broker
```

| module | holds |
|---|---|
| `ingest` | pure: one message and what is known -> accepted and refused records; the arithmetic of cursors |
| `sums` | whether the counts of a window add up, asked of whole arrays |
| `archive` | the SQLite file and what can be read of it |
| `store` | writing to it: one transaction for a batch; quarantine, gaps, references, the dead letters |
| `service` | the MQTT side: presence, batches, acknowledgements after the commit |

A record is keyed (device, epoch, sequence): storing it twice changes nothing, so devices and brokers may repeat at
will. What is refused is kept by its head and counted. A refused record still counts as received, so that it cannot
block its device for ever.
"""
