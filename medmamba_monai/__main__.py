"""``python -m medmamba_monai``: see medmamba_monai.cli."""

from __future__ import annotations

import sys

from medmamba_monai.cli import main

if __name__ == "__main__":
    sys.exit(main())
