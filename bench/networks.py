"""Whole networks against PyTorch, ONNX Runtime and OpenVINO: the same as `convoxel bench networks`.

python bench/networks.py [NAME …] [--dims N] [--all] [--batch 1,8] [--threads 1,2] [--rounds N] [--json FILE]
                         [--plot FILE] [--tune]
"""

import sys

from convoxel.cli import main

sys.exit(main(["bench", "networks", *sys.argv[1:]]))
