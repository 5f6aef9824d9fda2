"""Faults on purpose: what Convoxel does when a disk fails, a process dies, or a file is damaged or hostile.

``python -m tools.faults`` draws a sample of each sweep, ``--full`` runs the whole; both are seeded and go on where they
were interrupted. ``sweep`` says what a sweep is; ``writes``, ``kills``, ``flips``, ``mutations``, ``bombs`` and
``words`` are sweeps; ``worker`` runs a case in a process of its own, ``shim`` makes system calls fail there, and
``scene`` holds the files on which the cases work.
"""
