"""Measured comparisons: single layers against other engines, the register tile against the processor's ceiling.

Read ``clock`` (fair timing), ``layer`` (what is compared, from ``layers.txt``), ``peer`` (with whom), ``truth`` (the
exact result at some outputs), ``contest`` (one layer measured), ``verdict`` (means over many), ``plot``, ``tile``.

Figures are ratios of runs that took turns in one process. Absent on purpose: whole-run times without a peer or a
ceiling beside them, which say more about the machine's other tenants than about the program.
"""
