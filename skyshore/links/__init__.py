"""Link arithmetic: token bucket, delay line, traces. Pure; live shaper and simulator share it."""
