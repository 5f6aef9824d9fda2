"""Whole networks against PyTorch, ONNX Runtime and OpenVINO: the same as `convoxel bench networks`.

python bench/networks.py [NAME …] [--precisions float32,high,bfloat16,int8] [--peers A,B] [--dims N] [--all]
                         [--batch 1,8] [--threads 1,2] [--rounds N] [--turn S] [--tune] [--work FOLDER] [--json FILE]
                         [--markdown FILE] [--plot FILE]
"""

import sys

from convoxel.cli import main

sys.exit(main(["bench", "networks", *sys.argv[1:]]))
