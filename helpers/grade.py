"""`python -m helpers.grade`: a folder of submissions, see `labs.grading`."""

import sys

from .labs.grading.command import main

if __name__ == "__main__":
    sys.exit(main())
