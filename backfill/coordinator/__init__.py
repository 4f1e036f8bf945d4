"""The process that drives jobs: the lease, one drive, the daemon, the workers that it starts for itself."""
