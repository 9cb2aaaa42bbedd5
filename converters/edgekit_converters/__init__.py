"""From a trained model to a checked, signed bundle. This page is the package's architecture.

```
 model file --load--> estimator --registry.find--> Converter          data file --data--> DataFrame of the features
                                                      |  convert(model, X, target)
                                                      v
        target: the ONNX to write       Conversion: ONNX bytes, features, inputs, outputs, precision
                                                      |
   verify (through the device's own Engine) > quality > reference > golden > fit, cost > bundle, signing
```

- `target`: which opset and IR an onnxruntime release loads, and which one is written for it.
- `graph`: `GraphBuilder`, `Value`, `Table`: nodes with stable names, the same bytes for the same calls.
- `registry`: what a framework's converter is (`Converter`), what it gives (`Conversion`), how it is found.
- `data`, `load`: files become a DataFrame and an estimator, without running what is in them.
- `schema`, `nulls`, `nullable`: what the data and the model say of each feature; what a missing value means to them.
- `sklearn`: the converter of scikit-learn. `walk` goes through the fitted pipeline; `operators` holds the emitters of
  its leaf steps, and the way to skl2onnx for those that have none.
- `extended`: estimators that answer more than the one that they wrap.
- `onnx_file`, `torch`: the converters of raw ONNX and of PyTorch. `examination` (in a process of its own) and `foreign`
  read a file from elsewhere; `interface`, with `onnx_inputs`, `onnx_outputs` and `ends`, puts its nodes between the
  contract's inputs and outputs; `network` is what the user says of it.
- `verify`, `quality`, `reference`, `distance`, `golden`: does it answer like the original, how good is it, what did its
  data look like, which rows travel along as its self-test.
- `fit`, `cost`, `calibrate`: what it will take on a device. `bundle`, `signing`: the archive.

A new framework is one module with a `Converter` and an entry point of the group `edgekit.converters`; a new step of
scikit-learn is one emitter in `operators`. Nothing after the converter knows the framework. A converter refuses what
it cannot convert faithfully (`ConversionRefused`, with the path of the step); it never proves its own work, which
`verify` does.

Arrows go down: this package imports `edgekit_runtime` and `edgekit_contracts`, never `edgekit`.
"""

import edgekit_runtime as _runtime  # noqa: F401 - keeps onnxruntime from reporting to its maker; must come first
