"""Files: every file that Convoxel writes goes through here, and so does most of what it reads.

``atomic`` writes a file whole or not at all, ``stream`` reads no more than its caller allows, ``beside`` opens what
another file names, ``memory`` says how much is free for it, ``mapping`` reads a file as memory, ``file_array`` holds
arrays in files, ``gzip_stream`` compresses piece by piece, ``manifest`` proves a file by its hash, ``folder`` makes
folders for results, ``lock`` reserves one for one process, ``cache`` keeps small files between runs, ``csv_text``
writes tables, and ``fault`` words the messages about a file.
"""
