"""``python -m hpcrnn.reporting.study FILE -o DIR``."""

from hpcrnn.reporting.study.page import main

raise SystemExit(main())
