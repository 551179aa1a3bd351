//! Access records, formats, metrics, sinks.
