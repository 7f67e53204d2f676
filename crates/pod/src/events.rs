//! Event correlation as a client of Kubernetes does it.
