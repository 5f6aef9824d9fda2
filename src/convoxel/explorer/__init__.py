"""The local explorer: pages in the browser that show layers and networks with the numbers of the command line.

Read in this order: ``view`` (what a view is) → ``layer_view``, ``network_view`` (their JSON functions) → ``session``
(what was opened, and the files that may be read) → ``gate`` (who is let in) → ``pages`` (addresses, templates, answers)
→ ``serving`` (the socket, the address that is printed, the end).

A view is one module of JSON functions, one template and one ES module of the same name in ``static``; one line of
``pages.VIEWS`` adds it. ``static/library`` holds what the views share. Python computes every number; JavaScript places
and shows them. Absent on purpose: a build step, addresses of other machines, and answers for anyone without the key.
"""

from convoxel.explorer.notebook import show
from convoxel.explorer.serving import explore
from convoxel.face import open_face

__all__ = ["explore", "show"]

open_face(__name__)
