//! The sample services that `edgeward demo` fronts, and its tour.
