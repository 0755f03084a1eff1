"""From records to what people read: the terminal views, the figures, the report, exports, comparisons and gates.

Nothing here measures and nothing here is stored.  The rooms, each reading only from those above it::

    units, describe     the one place that turns numbers, and cases and hosts, into text
    analysis            every number, derived from raw samples by pure functions
    tables              what is said in tables and sentences, wherever it is shown
    figures             what is drawn
    export, comparison  results for other programs; results held against other results
    report, terminal    pages and terminal views, made of the above

so that a figure, a table and the terminal cannot disagree.  matplotlib, jinja2 and rich are imported inside the
functions that need them: importing this package is cheap.
"""
