//! Control plane: what the admin listener answers. Plain `http` types; knows neither the proxy nor Pingora.
