//! Reads machines and engines while the load runs.
