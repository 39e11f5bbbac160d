"""Runs as a file: `python3 -I -S .../initspawn/boot/__main__.py`; only then is our package on the path."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from initspawn.boot.supervise import main

sys.exit(main(sys.argv[1:]))
