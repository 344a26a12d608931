"""Statistics of scores: intervals, paired tests, the best of k trials, performance profiles."""
