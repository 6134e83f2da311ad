"""Makes ``python -m imapshield …`` the same as the console script ``imapshield …``."""

import sys

from imapshield.cli import main

sys.exit(main())
