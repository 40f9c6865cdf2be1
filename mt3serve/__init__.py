"""A server for one machine: recordings come in over HTTP, notes go out while they are found (extra `[web]`).

`app.py` has the addresses, `guard.py` who may ask, `jobs.py` the queue and the decoding, `uploads.py` how a recording
is received, `sounds.py` what can be listened to. The page itself is `mt3page/browser/serve.html` with its scripts.
"""
