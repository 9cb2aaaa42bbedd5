"""edgekit behind the signatures of skl2onnx and onnxmltools, so that their own tests can judge it.

`plugin` is a plugin of pytest that puts edgekit in place of their functions before a test module is imported;
`declared` makes the graph's inputs as a test declares them, `answered` names the outputs as a test expects them.
Nothing here falls back to the original functions: what edgekit refuses is an error of the test.
"""
