"""`python -m helpers.record NAME`: the long runs, see `course.record`."""

import sys

from .course.record import main

if __name__ == "__main__":
    sys.exit(main())
