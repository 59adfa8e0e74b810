"""Writes the golden schema and sample of every message and record anew: `.venv/bin/python tests/golden/regenerate.py`.

Look at the difference before committing it. Until a release has gone out anything may change; afterwards only what an
older release can still read: new fields with defaults, never a new meaning, a new bound or a lost field.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import golden

for name in golden.write():
    print("changed:", name)
