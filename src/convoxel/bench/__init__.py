"""Measured comparisons with other engines, and the register tile beside the processor's ceiling.

Read ``clock`` (fair timing) and ``comparison`` (what is derived from times) first; for layers ``layer`` (what is
compared, from ``layers.txt``), ``peer`` (with whom), ``exact`` (the exact result at some outputs), ``layer_bench``; for
networks ``network_list``, ``engine``, ``network_files``, ``worker``, ``network_bench``, ``network_run``; then
``summary_table`` and ``network_table`` (means over many) and ``plot``.

Figures are ratios of runs that took turns. Absent on purpose: times of whole runs without a peer or a ceiling beside
them, which say more about the other programs on the machine than about ours.
"""
