"""`python -m helpers.grade`: a folder of submissions, see `labs.grading`."""

import sys

from .labs.grade import main

if __name__ == "__main__":
    sys.exit(main())
