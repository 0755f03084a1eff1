"""The study of time-parallel methods: its figures, and a page that shows them."""
