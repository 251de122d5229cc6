"""`python -m helpers.pretrain teacher|student`: see `course.pretrain`."""

import sys

from .course.pretrain import main

if __name__ == "__main__":
    sys.exit(main())
