"""Many runs: what is made (`make`), in what pieces (`pieces`), and where: here, on worker processes
(`workers`, and in each `child`) or on a Ray cluster (`ray`)."""
