#!/usr/bin/env python3
"""usage: count.py NUMBER"""

import sys

text = sys.argv[1]
if not (text.isascii() and text.isdigit() and len(text) <= 4):
    sys.stderr.write(f"python: '{text}' is no number\n")
    sys.exit(2)
for i in range(1, int(text) + 1):
    print(f"python: {i}", flush=True)
