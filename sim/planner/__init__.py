"""Many runs at once: sweeps over what a scenario leaves open."""
