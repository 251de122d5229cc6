import sys

from .series import main

if __name__ == "__main__":
    sys.exit(main())
