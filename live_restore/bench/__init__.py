"""What it costs, measured on this machine: every figure beside a peer or a limit, in one run, with its conditions."""
