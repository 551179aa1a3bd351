//! The data plane: the only `ProxyHttp` implementation.
