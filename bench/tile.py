"""The register tile against the ceiling of fused multiply-adds: the same as `convoxel bench tile`.

python bench/tile.py [--threads N] [--isa NAME] [--rounds N] [--json]
"""

import sys

from convoxel.cli import main

sys.exit(main(["bench", "tile", *sys.argv[1:]]))
