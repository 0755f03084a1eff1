"""The network around the cells: its blocks and their costs, parameters, input layer, head, optimizers."""
