"""Critical points: Morse index, classification and search."""
