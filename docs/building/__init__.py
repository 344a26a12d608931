"""Pages of the site that are written from the package itself: reference, cheat sheet, benchmarks, study, gallery."""
