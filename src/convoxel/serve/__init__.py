"""Networks as a service: the Open Inference Protocol (KServe v2) over HTTP, which ``tritonclient`` and others speak.

Read in this order: ``model`` (what is served) → ``opening`` (networks, runs and files as models) → ``tensor`` and
``protocol`` (requests and answers) → ``queue`` (who waits, and what is computed together) → ``application`` (addresses)
→ ``running`` (the process: its start and its end). Absent on purpose: models that come and go while the server runs,
and files that a request could name.
"""

from convoxel.lazy import lazy_names

__all__ = ["serve"]

__getattr__, __dir__ = lazy_names(__name__, {"convoxel.serve.running": "serve"}, "Serving needs")
