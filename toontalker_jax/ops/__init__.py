"""Array operations that the network is built from: pure functions on NHWC arrays."""
