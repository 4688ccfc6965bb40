"""``python -m zmqpub``."""

import sys

from zmqpub.cli import main

if __name__ == "__main__":
    sys.exit(main())
