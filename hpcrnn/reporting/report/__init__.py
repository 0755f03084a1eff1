"""The report, for people: one page of the same content as HTML, Markdown and PDF.

``page`` holds the records a page is made of, ``sections`` says which sections there are and in which order (a new
section is one entry there), ``html``, ``markdown`` and ``pdf`` each render a page, and ``write`` puts the files into
their folder.
"""
