"""Write the pages of the documentation: ``python -m tools.docs [PAGE…]`` runs all of them, or those named."""

from __future__ import annotations

import argparse

from tools.docs.site import SOURCE, write_site

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="parts of names of pages to run (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="pages that run at once (default: 2)")
    chosen = parser.parse_args()
    write_site(chosen.pages, chosen.jobs)
    print(f"pages: {SOURCE}")
