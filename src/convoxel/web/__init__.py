"""A server of HTTP that limits whoever asks, for the explorer and for ``convoxel serve``.

``request`` holds the checks of a request, ``server`` the socket and the connections. Absent on purpose: addresses, and
who is let in, which the two applications decide.
"""
