"""``python -m imapshield …`` is the console script ``imapshield …``."""

import sys

from imapshield.command import main

sys.exit(main())
