#!/usr/bin/env python3
"""Holds nxr against the real nginx: see compat/README.md."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from harness.main import main  # noqa: E402

sys.exit(main())
