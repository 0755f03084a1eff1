"""The report: pages made of the figures and the tables."""
