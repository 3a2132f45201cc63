"""CPU, GPU and TPU: chosen, and divided among replicas and workers."""
