"""``python -m imapshield …`` is the console script ``imapshield …``."""

import sys

from imapshield.cli import main

sys.exit(main())
