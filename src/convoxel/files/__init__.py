"""Files: every file that Convoxel opens or writes goes through here.

``atomic`` writes a file whole or not at all, ``stream`` reads no more than its caller allows, ``mapping`` reads a file
as memory, ``lock`` keeps a folder for one process, ``cache`` holds small files between runs, and ``fault`` words what
is wrong with a file.
"""
