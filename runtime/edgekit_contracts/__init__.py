"""The ground that all parties share: the formats, their limits, and what can go wrong.

A bundle in the field cannot be recalled, so the reader owns the format: these modules travel with the device's
wheel, and import the standard library and msgspec only.

| module | holds |
|---|---|
| `errors` | one small tree of errors; each builds its sentence, knows its next step and its exit code |
| `limits` | every limit, as data with its unit |
| `decode` | bytes -> typed value, or an error with the path to the fault; the rule for format numbers |
| `choices` | what may stand where a word was wrong |
| `container` | the `.edge` archive: canonical stored zip, written and read strictly |
| `manifest` | what a bundle says of itself |
| `reference` | bins and statistics of the reference data, and `bins_id` |
| `golden` | inputs and expected answers that travel in the bundle |
| `profile` | a board: what it is, its limits, its calibrated rates with their sources |
| `telemetry` | envelope, window, gap, event, labels, reference part, acknowledgement: MessagePack |
| `state` | what a device says it runs (retained birth and last will), and its scalars |
| `alerts` | how grave an event is; alerts in JSON |
| `latency` | percentiles from latency bins |
| `enrolment` | token, request and grant of a certificate |
| `topics` | the MQTT topic tree as frozen values |
| `schema` | JSON Schema of all of them, kept in docs/formats |
"""
