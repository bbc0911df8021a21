"""`python -m extmem` is the command line."""

import sys

if __name__ == "__main__":
    try:
        from extmem.cli import main
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        sys.exit(130)
    main()
