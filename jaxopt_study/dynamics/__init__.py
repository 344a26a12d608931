"""Where the landscape meets the optimizer: stability, preconditioned sharpness, step accounting."""
