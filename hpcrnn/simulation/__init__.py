"""What a schedule would take on an ideal machine, and the closed forms it is held against; no arrays, no MPI."""
