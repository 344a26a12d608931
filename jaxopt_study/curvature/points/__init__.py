"""Points: the Morse index, the kind of a critical point, and how to find one."""
