"""All benchmarks, one after the other; `make bench` runs this. Options are passed on to each."""

from __future__ import annotations

import os
import sys

import api
import boot
import configuration
import crowd
import launch

BENCHMARKS = (launch, api, crowd, configuration, *([boot] if os.geteuid() == 0 else []))

if __name__ == "__main__":
    for benchmark in BENCHMARKS:
        benchmark.main(sys.argv[1:])
