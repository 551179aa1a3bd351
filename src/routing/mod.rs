//! Pure: patterns, matcher, table, rewrite. Knows a route only by its `RouteId`.
