"""A library of faults to put into a real engine, to see which criteria turn red.

`library.py` has all of them. A fault is in the module of its place: `engine/` (code of vLLM, which
is changed while the server's process imports it), `checkpoint.py` (files of a copied checkpoint),
`wire.py` (requests and replies, which the proxy of `proxy.py` changes).
"""
