"""What whylogs makes of the rows in a .npy file: bytes of the profile, and microseconds. Printed as JSON."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas as pd
import whylogs
from whylogs.core.view.dataset_profile_view import DatasetProfileView

rows = np.load(sys.argv[1])
frame = pd.DataFrame(rows, columns=[f"f{at}" for at in range(rows.shape[1])])
encode, merge = [], []
for _ in range(5):
    view = whylogs.log(frame).view()
    start = time.perf_counter()
    data = view.serialize()
    encode.append(time.perf_counter() - start)
    start = time.perf_counter()
    view.merge(DatasetProfileView.deserialize(data))
    merge.append(time.perf_counter() - start)
found = {"bytes": len(data), "encode_us": 1e6 * min(encode), "merge_us": 1e6 * min(merge)}
print(json.dumps({"version": whylogs.__version__, **found}))
