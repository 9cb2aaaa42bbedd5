"""What the stored windows say: drift against the reference, latency.

| module | holds |
|---|---|
| `varint_rows` | counts of many windows, read and written as one table |
| `drift` | three tests on counts for each feature, the score and the classes; an effect size beside each p-value |
| `latency` | percentiles from the latency bins |

All pure: counts in, values out. Raw rows are neither needed nor there.
"""
