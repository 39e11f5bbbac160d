"""All benchmarks, one after the other; `make bench` runs this. Options are passed on to each."""

from __future__ import annotations

import sys

import api
import configuration
import launch

BENCHMARKS = (launch, api, configuration)

if __name__ == "__main__":
    for benchmark in BENCHMARKS:
        benchmark.main(sys.argv[1:])
