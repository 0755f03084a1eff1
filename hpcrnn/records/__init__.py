"""The record of a run: raw samples, verdict, environment; its HDF5 form; the statistics derived on reading."""
