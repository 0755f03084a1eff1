"""``python -m hpcrnn`` is the ``hpcrnn`` command."""

from hpcrnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
