"""`fairlead up`: simulators, picker and Envoy on loopback, in one process tree that dies together."""
