"""Single convolutions against PyTorch, ONNX Runtime and OpenVINO: the same as `convoxel bench layers`.

python bench/layers.py [NET …] [--dims N] [--all] [--algorithms] [--threads N] [--rounds N] [--json FILE] [--plot FILE]
"""

import sys

from convoxel.cli import main

sys.exit(main(["bench", "layers", *sys.argv[1:]]))
