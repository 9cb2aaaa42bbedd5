"""A table through the model: CSV and JSON Lines with nothing installed, Parquet with the extra `parquet`.

Rows stream: reading, inference and writing overlap, a few chunks of rows are held at a time, and any size fits. What is
done is written down as it goes, so that a run that was killed goes on where it was.

| module | does |
|---|---|
| `tables` | what readers, the model and writers hand each other |
| `csv_file`, `jsonl_file`, `parquet_file` | one kind of file each: rows in, rows with answers out |
| `lines` | lines of a text file, and where each one ended |
| `parquet_footer` | one Parquet footer out of the footers of its parts |
| `ahead` | a step that works ahead of the next one, in a thread |
| `part`, `journal` | the file that is being made, and what of it is whole |
| `predict` | the loop |
| `progress` | rows, rate and time left on a terminal |
"""

from __future__ import annotations

from edgekit_runtime.batch.predict import predict_file

__all__ = ["predict_file"]
