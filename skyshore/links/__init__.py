"""Link arithmetic: token bucket, delay line, traces. Pure functions for the live shaper and the simulator."""
