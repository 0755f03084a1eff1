"""From records to what people read: the terminal view, the figures and the report.

Nothing here measures and nothing here is stored.  Every number is derived from raw samples in
:mod:`hpcrnn.reporting.scaling`, turned into text in :mod:`hpcrnn.reporting.units`, and only then drawn or
tabulated, so that a figure, a table and the terminal cannot disagree.  matplotlib, jinja2 and rich are
imported inside the functions that need them: importing this package is cheap.
"""
