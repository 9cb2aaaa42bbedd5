"""From MQTT to the store: what devices send is checked, stored once, and only then acknowledged.

```
 broker --> service (network thread) --> queue --> worker: intake (read, ingest, COMMIT) -> Ack --> broker
```

| module | holds |
|---|---|
| `ingest` | pure: one message and what is known -> accepted and refused records |
| `plain`, `sums` | the same of what is right: read at once; whether counts add up, asked of whole arrays |
| `intake` | a batch goes in, and what became of it comes out, after the commit |
| `apart`, `busy` | the same by a process of its own, as soon as that pays |
| `cursor` | pure: which records of an epoch have come; new, known, or given up |
| `store`, `batch`, `references` | writing: one transaction for a batch; cursors, gaps, quarantine, the dead letters |
| `archive` | what can be read |
| `schema`, `database` | the tables, as data, and what is asked of the database under them |
| `blocks` | rows of windows: those of a device and hour that came together |
| `sqlite`, `migration` | that in one file; stores of older releases |
| `postgres` | that in PostgreSQL; days as partitions |
| `rollup`, `hours`, `rolled`, `rollup_rows` | hours and days: adding up, many windows at once; taking in; tables |
| `lookback` | what a device said since some time, from days, hours and the windows that are not in them yet |
| `export`, `tables`, `parquet_files` | all of it as Parquet |
| `keep`, `retention` | how long what is kept; removing what is older, in small transactions |
| `upkeep`, `passes` | what is done once an hour, beside taking in: when; and what, in a process of its own |
| `claims`, `leases` | which partitions this collector holds, where several share PostgreSQL; pure: who takes which |
| `alone` | of one name one collector stores into a file |
| `service` | the MQTT side: presence, batches, acknowledgements after the commit |

A record is keyed (device, epoch, sequence): storing it twice changes nothing, so devices and brokers may repeat at
will. What is refused is kept by its head and counted. A refused record still counts as received, so that it cannot
block its device for ever.
"""
